select "id" as "id" from "sequence" where "hash" = :hash and "indexed" = 0 and ("tags" > 0 or "held" = 1);
