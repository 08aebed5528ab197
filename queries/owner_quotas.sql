select exists (select 1 from "owner" where "quota" is not null) as "quotas";
