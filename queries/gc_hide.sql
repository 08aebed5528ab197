update "blob" set "hash" = null, "state" = 0, "stored" = 0, "external" = 0
where "id" = :id and "hash" is not null and "last_used" < :began and "protected" = 0
and not exists (select 1 from "key" where "key"."blob" = "blob"."id")
and not exists (select 1 from "owned" where "owned"."blob" = "blob"."id");
