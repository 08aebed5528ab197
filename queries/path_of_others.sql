select "path"."path" as "path" from "path" join "blob" on "blob"."id" = "path"."blob"
where "path"."path" in (:path, :real) and "hash" is not :hash limit 1;
