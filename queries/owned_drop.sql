delete from "owned" where "owner" = :owner and "blob" = :blob and "keys" = 0 and "direct" = 0;
