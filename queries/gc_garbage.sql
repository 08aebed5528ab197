select "id" as "id", "hash" as "hash", "state" as "state", "stored" as "stored"
from "blob"
where "id" > :after and "id" <= :to and "hash" is not null and "last_used" < :began
and ("protected" = 0 or :expired and "protected" =
  (select count(*) from "tag" where "tag"."hash" = "blob"."hash" and "expires" <= :now)
  + (select count(*) from "child" join "sequence" on "sequence"."id" = "child"."sequence"
    where "prefix" = substr("blob"."hash", 1, 8) and "held" = 0
    and "tags" = (select count(*) from "tag" where "tag"."hash" = "sequence"."hash" and "format" = 1 and "expires" <= :now)))
and not exists (select 1 from "key" where "key"."blob" = "blob"."id")
and not exists (select 1 from "owned" where "owned"."blob" = "blob"."id")
order by "id";
