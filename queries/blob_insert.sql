insert into "blob" ("id", "hash", "size", "state", "stored", "created", "last_used")
values (:id, :hash, :size, 2, :size, :now, :now)
on conflict ("hash") where "hash" is not null do nothing;
