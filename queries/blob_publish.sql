update "blob"
set "hash" = :hash, "size" = :size, "state" = 2, "stored" = :size, "last_used" = :now
where "id" = :id;
