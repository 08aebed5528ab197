insert into "outboard" ("id", "pairs") values (:id, :pairs)
on conflict ("id") do update set "pairs" = excluded."pairs";
