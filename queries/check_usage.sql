select count(*) filter (where "state" = 2) as "blobs", count(*) filter (where "state" = 1) as "partial",
  coalesce(sum("size") filter (where "state" != 0), 0) as "bytes",
  coalesce(sum("stored") filter (where "state" != 0), 0) as "stored_bytes"
from "blob";
