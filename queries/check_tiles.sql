select "id" as "id", octet_length("pairs") as "length" from "outboard" where "id" between :from and :to order by "id";
