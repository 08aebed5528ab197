select "blobs" as "blobs", "partial" as "partial", "bytes" as "bytes", "stored_bytes" as "stored_bytes",
  "pieces" as "pieces", "used" as "used", "tags" as "tags", "external" as "external"
from "usage";
