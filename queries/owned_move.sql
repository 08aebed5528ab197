insert into "owned" ("owner", "blob", "keys", "direct", "last_used", "protected")
select "o"."owner", "b"."id", 0, "o"."direct", "b"."last_used", "b"."protected" + ("b"."stored" = 0)
from "owned" "o", "blob" "b"
where "o"."blob" = :old and "b"."id" = :new and "o"."direct" = 1
on conflict do update set "direct" = 1;
