update "blob" set "state" = 1, "stored" = :stored, "external" = :external where "id" = :id;
