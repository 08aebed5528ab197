update "blob" set "hash" = null, "state" = 0 where "id" = :id;
