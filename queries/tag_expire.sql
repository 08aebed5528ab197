delete from "tag" where "name" in (select "name" from "tag" where "expires" > 0 and "expires" <= :now limit :limit + 0);
