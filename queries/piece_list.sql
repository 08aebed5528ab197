select "key"."name" as "name", "owner"."name" as "owner", "size" as "size", "state" as "state", "hash" as "hash",
  "stored" as "stored", "last_used" as "last_used"
from "key"
join "blob" on "blob"."id" = "key"."blob"
left join "owner" on "owner"."id" = "key"."owner"
where "key"."name" > :after and "key"."name" >= :from and "key"."name" < :to
order by "key"."name"
limit :limit + 0;
