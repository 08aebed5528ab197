select "id" as "id", "hash" as "hash", "lost" as "lost" from "sequence"
where ("tags" > 0 or "held" = 1) and "id" > :after order by "id" limit :limit + 0;
