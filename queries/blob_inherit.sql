update "blob" set "added" = max("added", (select "added" from "blob" where "id" = :old)) where "id" = :new;
