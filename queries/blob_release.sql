update "blob" set "added" = 0 where "id" = :blob;
