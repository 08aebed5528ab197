delete from "tag" where "name" = :name;
