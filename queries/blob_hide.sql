update "blob" set "hash" = null, "state" = 0, "stored" = 0 where "id" = :id;
