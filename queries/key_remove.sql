delete from "key" where "name" = :name;
