insert into "presence" ("id", "groups") values (:id, :groups)
on conflict ("id") do update set "groups" = excluded."groups";
