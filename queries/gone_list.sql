select "seq" as "seq", "what" as "what", "blob" as "blob", "owner" as "owner", "hash" as "hash", "size" as "size", "name" as "name"
from "gone" where "seq" > :after order by "seq";
