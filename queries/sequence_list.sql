select "id" as "id", "hash" as "hash", "indexed" as "indexed" from "sequence"
where ("tags" > 0 or "held" = 1) and "id" > :after order by "id" limit :limit + 0;
