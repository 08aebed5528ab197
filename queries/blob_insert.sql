insert into "blob" ("id", "hash", "size", "state", "stored", "created", "last_used", "added")
values (:id, :hash, :size, 2, :size, :now, :now, :added)
on conflict ("hash") where "hash" is not null do nothing;
