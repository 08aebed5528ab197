select 'tag' as "kind", "hash" as "hash", 'sequence of ' || "tags" || ' tags, and there are '
  || (select count(*) from "tag" where "tag"."hash" = "sequence"."hash" and "format" = 1) as "detail"
from "sequence"
where "tags" != (select count(*) from "tag" where "tag"."hash" = "sequence"."hash" and "format" = 1)
union all
select 'tag', "hash", 'tag x''' || hex("name") || ''' names a sequence that is not noted'
from "tag"
where "format" = 1 and not exists (select 1 from "sequence" where "sequence"."hash" = "tag"."hash")
union all
select 'tag', null, 'children of sequence ' || "sequence" || ', which is not there'
from "child"
where not exists (select 1 from "sequence" where "id" = "child"."sequence")
group by "sequence"
union all
select 'path', "hash", 'file x''' || hex("path") || ''' of ' || "path"."blob" || ', which has nothing outside'
from "path" left join "blob" on "id" = "path"."blob"
where "id" is null or "external" = 0
union all
select 'path', "hash", "external" || ' bytes are outside, and no file is named'
from "blob"
where "external" > 0 and not exists (select 1 from "path" where "path"."blob" = "id");
