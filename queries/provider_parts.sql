select "key"."name" as "name", "blob"."size" as "size", "blob"."hash" as "hash"
from "key" join "blob" on "blob"."id" = "key"."blob"
where "key"."name" >= :from and "key"."name" < :to;
