delete from "path" where "blob" = :blob and "path" = :path and "size" = :size and "mtime" = :mtime and "inode" = :inode;
