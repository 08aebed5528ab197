delete from "owned" where "owner" = :owner;
