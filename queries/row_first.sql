select "id" as "id" from "row" where "id" between :from and :to order by "id" limit :limit;
