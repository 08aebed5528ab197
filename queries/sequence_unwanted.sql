select exists (select 1 from "sequence" where "tags" = 0 and "held" = 0) as "unwanted";
