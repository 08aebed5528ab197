select "id" as "id", "hash" as "hash" from "sequence"
where "indexed" = 0 and ("tags" > 0 or "held" = 1) and "id" > :after order by "id" limit 1;
