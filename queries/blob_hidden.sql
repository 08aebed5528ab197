select "id" as "id" from "blob" where "state" = 0 and "id" > :after order by "id" limit 1;
