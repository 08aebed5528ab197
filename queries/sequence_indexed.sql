update "sequence" set "indexed" = 1,
  "lost" = "lost" and not exists (select 1 from "blob" where "blob"."hash" = "sequence"."hash" and "state" = 2)
where "id" = :id;
