update "blob"
set "state" = 1, "stored" = :stored, "external" = :external, "proven" = :proven
where "id" = :id;
