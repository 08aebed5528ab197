insert into "path" ("blob", "path", "size", "mtime", "inode") values (:blob, :path, :size, :mtime, :inode)
on conflict ("blob", "path") do update set "size" = excluded."size", "mtime" = excluded."mtime", "inode" = excluded."inode";
