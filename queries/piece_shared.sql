select "added" or (select count(*) from (select 1 from "key" where "blob" = :blob limit 2)) > 1
  or exists (select 1 from "owned" where "blob" = :blob and "direct" = 1)
  or exists (select 1 from "tag" where "tag"."hash" = "blob"."hash")
  or exists (select 1 from "child" where "prefix" = substr("blob"."hash", 1, 8)) as "shared"
from "blob" where "id" = :blob;
