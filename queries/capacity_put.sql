insert into "setting" ("name", "value") values ('capacity', :capacity)
on conflict ("name") do update set "value" = excluded."value";
