delete from "tag" where "name" >= :from and "name" < :to;
