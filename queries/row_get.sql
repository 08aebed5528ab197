select "id" as "id", "data" as "data" from "row" where "id" = :from;
