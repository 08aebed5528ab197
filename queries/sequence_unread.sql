select exists (select 1 from "sequence" where "indexed" = 0 and ("tags" > 0 or "held" = 1)) as "unread";
