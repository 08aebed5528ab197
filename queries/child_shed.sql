delete from "child" where ("sequence", "prefix") in (
  select "child"."sequence", "child"."prefix"
  from "sequence" join "child" on "child"."sequence" = "sequence"."id"
  where "tags" = 0 and "held" = 0
  limit :limit + 0);
