update "blob"
set "size" = :size, "state" = :state, "stored" = :stored, "proven" = :proven, "last_used" = max("last_used", :now)
where "id" = :id;
