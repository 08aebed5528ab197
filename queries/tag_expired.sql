select count(*) as "expired" from "tag" where "expires" > 0 and "expires" <= :now;
