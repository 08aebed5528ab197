delete from "presence" where "id" between :from and :to;
