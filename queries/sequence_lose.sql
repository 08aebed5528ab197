update "sequence" set "lost" = 1 where "hash" = :hash and "indexed" = 0;
