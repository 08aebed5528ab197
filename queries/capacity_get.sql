select "value" as "capacity" from "setting" where "name" = 'capacity';
