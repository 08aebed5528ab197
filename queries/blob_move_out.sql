update "blob" set "stored" = "stored" - :bytes, "external" = "external" + :bytes where "id" = :id;
