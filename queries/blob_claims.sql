select exists (select 1 from "key" where "blob" = :blob) or exists (select 1 from "owned" where "blob" = :blob) as "claimed";
