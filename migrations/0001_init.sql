-- A setting is what the database remembers for every later Open.
create table "setting" (
  "name" text primary key not null,
  "value" any not null
) strict, without rowid;

-- One row a blob. state: 0 hidden (being written, or being dropped: no reader
-- sees it and Open removes what a crash left), 1 partial, 2 complete.
-- A complete blob has a hash. stored is the number of payload bytes held.
-- Times are nanoseconds since the Unix epoch.
create table "blob" (
  "id" integer primary key,
  "hash" blob check (length("hash") = 32),
  "size" integer not null check ("size" >= 0),
  "state" integer not null check ("state" in (0, 1, 2)),
  "stored" integer not null check ("stored" >= 0),
  "created" integer not null,
  "last_used" integer not null,
  check ("hash" is not null or "state" != 2)
) strict;

create unique index "blob_hash" on "blob" ("hash") where "hash" is not null;
create index "blob_hidden" on "blob" ("id") where "state" = 0;

-- One row a chunk group of 16 KiB (the last one shorter).
-- id = blob id << 26 | group index, so that a blob is one range of keys.
create table "row" (
  "id" integer primary key,
  "data" blob not null
) strict;

-- Hash pairs above group level, in tiles of six levels, pairs in order.
-- id = blob id << 26 | first group | level: the first group of a tile is a
-- multiple of 64, so the level fits below it.
create table "outboard" (
  "id" integer primary key,
  "pairs" blob not null
) strict;

-- What is stored, kept exact by the triggers below in the transaction that
-- changes it. Hidden blobs do not count.
create table "usage" (
  "id" integer primary key check ("id" = 1),
  "blobs" integer not null,
  "partial" integer not null,
  "bytes" integer not null,
  "stored_bytes" integer not null
) strict;
insert into "usage" values (1, 0, 0, 0, 0);

create trigger "blob_usage_insert" after insert on "blob" when new."state" != 0 begin
  update "usage" set
    "blobs" = "blobs" + (new."state" = 2),
    "partial" = "partial" + (new."state" = 1),
    "bytes" = "bytes" + new."size",
    "stored_bytes" = "stored_bytes" + new."stored";
end;

create trigger "blob_usage_delete" after delete on "blob" when old."state" != 0 begin
  update "usage" set
    "blobs" = "blobs" - (old."state" = 2),
    "partial" = "partial" - (old."state" = 1),
    "bytes" = "bytes" - old."size",
    "stored_bytes" = "stored_bytes" - old."stored";
end;

create trigger "blob_usage_update" after update of "state", "size", "stored" on "blob" begin
  update "usage" set
    "blobs" = "blobs" + (new."state" = 2) - (old."state" = 2),
    "partial" = "partial" + (new."state" = 1) - (old."state" = 1),
    "bytes" = "bytes" + iif(new."state" = 0, 0, new."size") - iif(old."state" = 0, 0, old."size"),
    "stored_bytes" = "stored_bytes" + iif(new."state" = 0, 0, new."stored") - iif(old."state" = 0, 0, old."stored");
end;

-- For people: sqlite3 cairn.db 'select * from blobs'
create view "blobs" as
  select
    lower(hex("hash")) as "hash",
    "size",
    case
      when "size" < 1024 then "size" || ' B'
      when "size" < 1048576 then printf('%.1f KiB', "size" / 1024.0)
      when "size" < 1073741824 then printf('%.1f MiB', "size" / 1048576.0)
      else printf('%.1f GiB', "size" / 1073741824.0)
    end as "readable_size",
    case "state" when 1 then 'partial' else 'complete' end as "state",
    "stored",
    strftime('%Y-%m-%d %H:%M:%S', "created" / 1000000000, 'unixepoch') as "created",
    strftime('%Y-%m-%d %H:%M:%S', "last_used" / 1000000000, 'unixepoch') as "last_used"
  from "blob"
  where "state" != 0
  order by "blob"."hash";

create view "settings" as
  select "name", "value" from "setting" order by "name";
