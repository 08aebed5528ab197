update "sequence" set "held" = 0 where "held" = 1;
