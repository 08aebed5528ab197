select coalesce(max("last_used"), 0) as "last_used" from "blob" indexed by "blob_lru"
where "state" != 0 and "protected" = 0 and "stored" > 0;
