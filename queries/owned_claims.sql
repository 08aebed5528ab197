select "keys" + "direct" as "claims" from "owned" where "owner" = :owner and "blob" = :blob;
