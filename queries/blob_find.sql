select "id" as "id", "size" as "size", "state" as "state", "stored" as "stored",
  "created" as "created", "last_used" as "last_used", "proven" as "proven", "external" as "external"
from "blob"
where "hash" = :hash;
