select "id" as "id", "indexed" as "indexed" from "sequence" where "hash" = :hash and ("tags" > 0 or "held" = 1);
