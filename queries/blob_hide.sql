update "blob" set "hash" = null, "state" = 0, "stored" = 0, "external" = 0 where "id" = :id;
