select "hash" as "hash" from "blob" where "id" = :id and "hash" is not null;
