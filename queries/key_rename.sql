update "key" set "name" = :to where "name" = :name;
