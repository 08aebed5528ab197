update "blob" set "hash" = null, "state" = 1, "stored" = :stored where "id" = :id;
