select "id" as "id", octet_length("data") as "length" from "row" where "id" between :from and :to order by "id";
