select "ranges" as "ranges" from "fragment" where "id" = :id;
