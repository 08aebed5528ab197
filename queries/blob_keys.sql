select "name" as "name" from "key" where "blob" = :blob order by "name";
