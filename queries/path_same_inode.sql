select "path"."path" as "path" from "path" join "blob" on "blob"."id" = "path"."blob"
where "path"."inode" = :inode and "path"."inode" != 0 and "hash" is not :hash;
