update "blob" set "stored" = 0 where "state" = 0 and "stored" != 0;
