delete from "row" where "id" between :from and :to;
