insert into "owner" ("name") values (:name);
