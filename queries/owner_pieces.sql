select "key"."name" as "name", "owner"."name" as "owner", "size" as "size", "state" as "state", "hash" as "hash",
  "stored" as "stored", "last_used" as "last_used"
from "key" indexed by "key_owner"
join "blob" on "blob"."id" = "key"."blob"
join "owner" on "owner"."id" = "key"."owner"
where "key"."owner" = :owner and "key"."owner" > 0 and "key"."name" > :after
order by "key"."name"
limit :limit + 0;
