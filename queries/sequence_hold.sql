insert into "sequence" ("hash", "held") values (:hash, 1)
on conflict ("hash") do update set "indexed" = "indexed" and ("tags" or "held"), "held" = 1;
