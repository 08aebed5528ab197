select "pairs" as "pairs" from "outboard" where "id" = :id;
