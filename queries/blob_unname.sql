update "blob" set "hash" = null, "stored" = 0 where "id" = :id;
