update "sequence" set "indexed" = 1 where "id" = :id;
