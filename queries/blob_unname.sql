update "blob" set "hash" = null, "stored" = 0, "external" = 0 where "id" = :id;
