select "value" as "after" from "setting" where "name" = 'gc_cursor';
