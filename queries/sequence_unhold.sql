update "sequence" set "held" = 0 where "hash" = :hash;
