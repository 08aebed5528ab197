update "blob" set "hash" = :hash, "state" = 2, "stored" = "size", "proven" = 1, "last_used" = :now where "id" = :id;
