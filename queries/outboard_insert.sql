insert into "outboard" ("id", "pairs") values (:id, :pairs);
