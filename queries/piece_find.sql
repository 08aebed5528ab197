select "id" as "id", "hash" as "hash", "size" as "size", "state" as "state", "stored" as "stored",
  "created" as "created", "last_used" as "last_used", "proven" as "proven", "owner" as "owner"
from "key" join "blob" on "id" = "blob"
where "name" = :name;
