select 'owner' as "kind", null as "hash", 'owner x''' || hex("name") || ''' has ' || "pieces" || ' pieces and ' || "bytes" || ' bytes noted, '
  || (select count(*) from "key" where "owner" = "owner"."id") || ' and '
  || (select coalesce(sum("stored"), 0) from "owned" join "blob" on "blob"."id" = "blob" where "owner" = "owner"."id") as "detail"
from "owner"
where "pieces" != (select count(*) from "key" where "key"."owner" = "owner"."id")
or "bytes" != (select coalesce(sum("stored"), 0) from "owned" join "blob" on "blob"."id" = "owned"."blob" where "owned"."owner" = "owner"."id")
or "bytes" > "quota"
union all
select 'owner', "hash", 'owner ' || "owned"."owner" || ' has ' || "keys" || ' keys noted'
from "owned" left join "blob" on "id" = "blob"
where "id" is null or "state" = 0
or "keys" != (select count(*) from "key" where "key"."blob" = "owned"."blob" and "key"."owner" = "owned"."owner")
or "keys" + "direct" = 0
or "owned"."last_used" != "blob"."last_used" or "owned"."protected" != "blob"."protected" + ("stored" = 0)
or not exists (select 1 from "owner" where "id" = "owned"."owner")
union all
select 'owner', null, 'a key of owner ' || "owner" || ' is not noted'
from "key"
where "owner" is not null
and not exists (select 1 from "owned" where "owned"."owner" = "key"."owner" and "owned"."blob" = "key"."blob");
