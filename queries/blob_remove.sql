delete from "blob" where "id" = :id;
