delete from "owner" where "id" = :owner;
