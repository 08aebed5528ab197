select "path" as "path", "size" as "size", "mtime" as "mtime", "inode" as "inode", "real" as "real"
from "path" where "blob" = :blob order by "path";
