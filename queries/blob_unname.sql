update "blob" set "hash" = null where "id" = :id;
