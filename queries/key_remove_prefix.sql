delete from "key" where "name" >= :from and "name" < :to;
