insert into "fragment" ("id", "ranges") values (:id, :ranges)
on conflict ("id") do update set "ranges" = excluded."ranges";
