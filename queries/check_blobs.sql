select "id" as "id", "hash" as "hash", "size" as "size", "state" as "state", "stored" as "stored", "proven" as "proven",
  "external" as "external"
from "blob"
where "id" > :after
order by "id"
limit :limit + 0;
