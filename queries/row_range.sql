select "id" as "id", "data" as "data" from "row" where "id" between :from and :to order by "id";
