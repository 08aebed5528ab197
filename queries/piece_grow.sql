update "blob" set "stored" = "stored" + :bytes, "last_used" = max("last_used", :now) where "id" = :id;
