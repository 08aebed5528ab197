select count(*) as "count" from "blob" where "id" = :id;
