select count(*) filter (where "state" = 2) as "blobs",
  count(*) filter (where "state" = 1 and "hash" is not null) as "partial",
  coalesce(sum("size") filter (where "state" != 0), 0) as "bytes",
  coalesce(sum("stored") filter (where "state" != 0), 0) as "stored_bytes",
  (select count(*) from "key") as "pieces",
  coalesce(sum("stored"), 0) as "used",
  (select count(*) from "tag") as "tags",
  coalesce(sum("external"), 0) as "external"
from "blob";
