update "blob" set "last_used" = max("last_used", :now) where "id" = :id;
