-- The schema after all migrations, for people to read. The migrations make it;
-- this file is written from them by go test -update . and never executed.
-- Comments stand in migrations/ and in FORMAT.md.

CREATE TABLE "blob" (
  "id" integer primary key,
  "hash" blob check (length("hash") = 32),
  "size" integer not null check ("size" >= 0),
  "state" integer not null check ("state" in (0, 1, 2)),
  "stored" integer not null check ("stored" >= 0),
  "created" integer not null,
  "last_used" integer not null, "proven" integer not null default 1 check ("proven" in (0, 1)),
  check ("hash" is not null or "state" != 2)
) strict;

CREATE TABLE "outboard" (
  "id" integer primary key,
  "pairs" blob not null
) strict;

CREATE TABLE "presence" (
  "id" integer primary key,
  "groups" integer not null check ("groups" != 0)
) strict;

CREATE TABLE "row" (
  "id" integer primary key,
  "data" blob not null
) strict;

CREATE TABLE "setting" (
  "name" text primary key not null,
  "value" any not null
) strict, without rowid;

CREATE TABLE "usage" (
  "id" integer primary key check ("id" = 1),
  "blobs" integer not null,
  "partial" integer not null,
  "bytes" integer not null,
  "stored_bytes" integer not null
) strict;

CREATE UNIQUE INDEX "blob_hash" on "blob" ("hash") where "hash" is not null;

CREATE INDEX "blob_hidden" on "blob" ("id") where "state" = 0;

CREATE TRIGGER "blob_usage_delete" after delete on "blob" when old."state" != 0 begin
  update "usage" set
    "blobs" = "blobs" - (old."state" = 2),
    "partial" = "partial" - (old."state" = 1),
    "bytes" = "bytes" - old."size",
    "stored_bytes" = "stored_bytes" - old."stored";
end;

CREATE TRIGGER "blob_usage_insert" after insert on "blob" when new."state" != 0 begin
  update "usage" set
    "blobs" = "blobs" + (new."state" = 2),
    "partial" = "partial" + (new."state" = 1),
    "bytes" = "bytes" + new."size",
    "stored_bytes" = "stored_bytes" + new."stored";
end;

CREATE TRIGGER "blob_usage_update" after update of "state", "size", "stored" on "blob" begin
  update "usage" set
    "blobs" = "blobs" + (new."state" = 2) - (old."state" = 2),
    "partial" = "partial" + (new."state" = 1) - (old."state" = 1),
    "bytes" = "bytes" + iif(new."state" = 0, 0, new."size") - iif(old."state" = 0, 0, old."size"),
    "stored_bytes" = "stored_bytes" + iif(new."state" = 0, 0, new."stored") - iif(old."state" = 0, 0, old."stored");
end;

CREATE VIEW "blobs" as
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

CREATE VIEW "settings" as
  select "name", "value" from "setting" order by "name";
