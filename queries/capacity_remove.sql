delete from "setting" where "name" = 'capacity';
