update "blob"
set "hash" = :hash, "size" = :size, "state" = 2, "stored" = :size, "last_used" = :now, "added" = :added
where "id" = :id;
