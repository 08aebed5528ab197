update "owned" set "direct" = 0 where "owner" = :owner and "blob" = :blob;
