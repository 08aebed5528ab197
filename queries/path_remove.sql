delete from "path" where "blob" = :blob;
