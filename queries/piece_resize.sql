update "blob" set "size" = :size where "id" = :id;
