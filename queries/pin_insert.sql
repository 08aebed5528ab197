insert into "pin" ("blob") select "id" from "blob" where "id" = :blob and "state" != 0 on conflict do nothing;
