select "used" as "used" from "usage";
