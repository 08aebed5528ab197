update "tag" set "name" = :new where "name" = :old;
