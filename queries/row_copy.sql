insert into "row" ("id", "data") select "id" + :shift, "data" from "row" where "id" between :from and :last order by "id";
