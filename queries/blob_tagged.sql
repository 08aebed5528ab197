select exists (select 1 from "tag" where "hash" = :hash)
  or exists (select 1 from "child" join "sequence" on "sequence"."id" = "child"."sequence"
    where "prefix" = substr(:hash, 1, 8) and ("tags" > 0 or "held" = 1)) as "tagged";
