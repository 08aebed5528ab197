select min(
  coalesce((select "value" from "setting" where "name" = 'capacity'), 9223372036854775807) - (select "used" from "usage"),
  coalesce((select min("quota" - "bytes") from "owner" where "quota" >= 0
    and "id" in (select "owner" from "owned" where "blob" = :blob)), 9223372036854775807)) as "room";
