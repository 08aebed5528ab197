select "groups" as "groups" from "presence" where "id" = :id;
