select "id" as "id", "name" as "name", "quota" as "quota", "pieces" as "pieces", "bytes" as "bytes"
from "owner" where "name" > :after order by "name" limit :limit + 0;
