select 1 as "wanted" from "sequence" where "id" = :id and ("tags" > 0 or "held" = 1);
