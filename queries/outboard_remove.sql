delete from "outboard" where "id" between :from and :to;
