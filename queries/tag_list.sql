select "name" as "name", "hash" as "hash", "format" as "format", "created" as "created", "expires" as "expires"
from "tag"
where "name" >= :from and "name" < :to
order by "name"
limit :limit + 0;
