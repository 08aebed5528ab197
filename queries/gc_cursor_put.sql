insert into "setting" ("name", "value") values ('gc_cursor', :after) on conflict ("name") do update set "value" = excluded."value";
