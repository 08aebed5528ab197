delete from "sequence"
where "tags" = 0 and "held" = 0 and not exists (select 1 from "child" where "child"."sequence" = "sequence"."id");
