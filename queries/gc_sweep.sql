delete from "blob"
where "id" in (select "value" from json_each(:ids)) and "hash" is not null and "last_used" < :began and "protected" = 0
and not exists (select 1 from "key" where "key"."blob" = "blob"."id")
and not exists (select 1 from "owned" where "owned"."blob" = "blob"."id")
returning "id";
