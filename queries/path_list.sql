select "path" as "path", "size" as "size", "mtime" as "mtime", "inode" as "inode" from "path" where "blob" = :blob order by "path";
