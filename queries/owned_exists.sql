select count(*) as "count" from "owned" where "owner" = :owner and "blob" = :blob;
