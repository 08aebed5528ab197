insert into "blob" ("id", "hash", "size", "state", "stored", "created", "last_used", "proven")
values (:id, :hash, :size, 1, 0, :now, :now, :proven);
