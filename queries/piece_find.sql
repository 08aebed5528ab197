select "id" as "id", "hash" as "hash", "size" as "size", "state" as "state", "stored" as "stored",
  "created" as "created", "last_used" as "last_used", "proven" as "proven", "external" as "external",
  (select "owner" from "key" where "name" = :name) as "owner"
from "blob"
where "id" = (select "blob" from "key" where "name" = :name);
