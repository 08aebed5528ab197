insert into "blob" ("id", "size", "state", "stored", "created", "last_used")
values (:id, 0, 0, 0, :now, :now);
