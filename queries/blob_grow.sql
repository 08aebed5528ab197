update "blob" set "stored" = "stored" + :bytes where "id" = :id;
