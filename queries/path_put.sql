insert into "path" ("blob", "path", "size", "mtime", "inode", "real") values (:blob, :path, :size, :mtime, :inode, :real)
on conflict ("blob", "path") do update set
  "size" = excluded."size", "mtime" = excluded."mtime", "inode" = excluded."inode", "real" = excluded."real";
