insert into "blob" ("id", "size", "state", "stored", "created", "last_used", "added")
values (:id, :size, 1, :stored, :now, :now, 0);
