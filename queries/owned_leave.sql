delete from "owned" where "blob" between :from and :to;
