select "blob" as "blob" from "owned"
where "owner" = :owner and "direct" = 1 and "blob" = (select "id" from "blob" where "hash" = :hash);
