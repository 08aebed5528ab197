update "blob" set "added" = max("added", coalesce((select "added" from "blob" where "id" = :old), 0)) where "id" = :new;
