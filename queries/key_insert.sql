insert into "key" ("name", "blob", "owner") values (:name, :blob, :owner);
