delete from "key" where "owner" = :owner;
