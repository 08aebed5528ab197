-- Whether somebody has proven the size, by the last chunk. Until then it is
-- what the peer said under whose statement the rightmost group was verified.
-- Only of a partial blob can it be 0.
alter table "blob" add column "proven" integer not null default 1 check ("proven" in (0, 1));

-- Which groups of a partial blob are there: bit i of groups is the group
-- (id & (1<<26)-1) + i. id = blob id << 26 | first group, a multiple of 64.
-- A complete blob has none.
create table "presence" (
  "id" integer primary key,
  "groups" integer not null check ("groups" != 0)
) strict;
