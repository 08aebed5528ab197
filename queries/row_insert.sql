insert into "row" ("id", "data") values (:id, :data);
