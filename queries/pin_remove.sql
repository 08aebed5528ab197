delete from "pin" where "blob" = :blob;
