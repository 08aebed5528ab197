select "id" as "id", "hash" as "hash", "size" as "size", "state" as "state", "stored" as "stored",
  "created" as "created", "last_used" as "last_used", "proven" as "proven", "external" as "external"
from "blob"
where "hash" is not null and "hash" >= :from and "hash" <= :to
order by "hash"
limit :limit + 0;
