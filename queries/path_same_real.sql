select "path"."path" as "path" from "path" join "blob" on "blob"."id" = "path"."blob"
where "path"."real" = :real and "path"."real" > x'' and "hash" is not :hash;
