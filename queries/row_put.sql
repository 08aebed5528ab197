insert into "row" ("id", "data") values (:id, :data)
on conflict ("id") do update set "data" = excluded."data";
