select "id" as "id", "ranges" as "ranges" from "fragment" where "id" between :from and :to order by "id";
