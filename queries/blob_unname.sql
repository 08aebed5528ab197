update "blob" set "hash" = null, "state" = 1, "stored" = 0, "external" = 0 where "id" = :id;
