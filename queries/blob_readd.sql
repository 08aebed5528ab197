update "blob" set "last_used" = max("last_used", :now), "added" = max("added", :added) where "id" = :id;
