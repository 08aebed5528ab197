select "id" as "id", "groups" as "groups" from "presence" where "id" between :from and :to order by "id" desc limit 1;
