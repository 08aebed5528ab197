update "blob" set "last_used" = case when :now < 0 then :now else max("last_used", :now) end where "id" = :id;
