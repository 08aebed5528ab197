select count(*) as "count" from "path" where "blob" = :blob and "path" = :path;
