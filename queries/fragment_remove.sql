delete from "fragment" where "id" between :from and :to;
