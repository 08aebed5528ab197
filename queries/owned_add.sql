insert into "owned" ("owner", "blob", "direct", "last_used", "protected")
select :owner, "id", 1, "last_used", "protected" + ("stored" = 0) from "blob" where "id" = :blob
on conflict do update set "direct" = 1;
