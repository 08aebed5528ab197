select 'piece' as "kind", "hash" as "hash", 'key x''' || hex("name") || ''' names a blob that is not there' as "detail"
from "key" left join "blob" on "id" = "blob"
where "id" is null or "state" = 0
union all
select 'piece', null, 'the bytes ' || "id" || ' of a piece have ' || (select count(*) from "key" where "blob" = "id") || ' keys'
from "blob"
where "state" = 1 and "hash" is null
and (select count(*) from "key" where "blob" = "id") not between iif("protected" = 0, 1, 0) and 1
union all
select 'piece', "hash", 'it came as a piece, and nobody has it'
from "blob"
where "state" != 0 and "added" = 0 and "protected" = 0
and not exists (select 1 from "key" where "blob" = "id")
and not exists (select 1 from "owned" where "blob" = "id");
