select "added" or (select count(*) from (select 1 from "key" where "blob" = :blob limit 2)) > 1
  or exists (select 1 from "owned" where "blob" = :blob and "direct" = 1) as "shared"
from "blob" where "id" = :blob;
