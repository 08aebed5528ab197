select 'usage' as "kind", "hash" as "hash", 'protected ' || "protected" || ' times' as "detail"
from "blob"
where "protected" != (select count(*) from "pin" where "blob" = "id")
  + (select count(*) from "tag" where "tag"."hash" = "blob"."hash")
  + (select count(*) from "child" where "prefix" = substr("blob"."hash", 1, 8))
union all
select 'usage', null, 'pin of ' || "blob" || ', which is not there'
from "pin"
where not exists (select 1 from "blob" where "id" = "blob")
union all
select 'usage', null, 'used ' || "used" || ' is above the capacity ' || "value"
from "usage" join "setting" on "name" = 'capacity'
where "used" > "value"
union all
select 'usage', null, 'what was taken away is still noted'
where exists (select 1 from "gone");
