select "stored" as "stored" from "blob" where "id" = :id and "protected" = 0;
