delete from "setting" where "name" = 'gc_cursor';
