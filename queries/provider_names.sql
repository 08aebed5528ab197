select "name" as "name" from "key" where "name" >= :from and "name" < :to order by "name";
