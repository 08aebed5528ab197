update "blob"
set "hash" = :hash, "size" = :size, "state" = 2, "stored" = :size - :external, "external" = :external, "last_used" = :now, "added" = :added
where "id" = :id;
