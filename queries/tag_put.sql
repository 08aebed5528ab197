insert into "tag" ("name", "hash", "format", "created", "expires") values (:name, :hash, :format, :now, nullif(:expires, 0))
on conflict ("name") do update set
  "hash" = excluded."hash", "format" = excluded."format", "created" = excluded."created", "expires" = excluded."expires";
