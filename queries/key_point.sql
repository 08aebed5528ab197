update "key" set "blob" = :blob where "name" = :name;
