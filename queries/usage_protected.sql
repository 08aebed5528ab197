select coalesce(sum("stored"), 0) as "stored" from "blob" indexed by "blob_protected" where "protected" > 0;
