insert into "row" ("id", "data") values (:id, :data) on conflict ("id") do nothing;
