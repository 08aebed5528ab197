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
  "last_used" integer not null, "proven" integer not null default 1 check ("proven" in (0, 1)), "added" integer not null default 1 check ("added" in (0, 1)), "protected" integer not null default 0 check ("protected" >= 0), "external" integer not null default 0 check ("external" >= 0),
  check ("hash" is not null or "state" != 2)
) strict;

CREATE TABLE "child" (
  "sequence" integer not null,
  "prefix" blob not null check (length("prefix") = 8),
  primary key ("sequence", "prefix")
) strict, without rowid;

CREATE TABLE "fragment" (
  "id" integer primary key,
  "ranges" text not null
) strict;

CREATE TABLE "gone" (
  "seq" integer primary key,
  "what" text not null check ("what" in ('victim', 'blob', 'key')),
  "blob" integer not null,
  "owner" integer,
  "hash" blob,
  "size" integer,
  "name" blob
) strict;

CREATE TABLE "key" (
  "name" blob primary key not null check (length("name") between 1 and 4096),
  "blob" integer not null,
  "owner" integer
) strict, without rowid;

CREATE TABLE "outboard" (
  "id" integer primary key,
  "pairs" blob not null
) strict;

CREATE TABLE "owned" (
  "owner" integer not null,
  "blob" integer not null,
  "keys" integer not null default 0 check ("keys" >= 0),
  "direct" integer not null default 0 check ("direct" in (0, 1)),
  "last_used" integer not null,
  "protected" integer not null,
  primary key ("owner", "blob")
) strict, without rowid;

CREATE TABLE "owner" (
  "id" integer primary key,
  "name" blob unique not null check (length("name") between 1 and 4096),
  "quota" integer check ("quota" >= 0),
  "pieces" integer not null default 0,
  "bytes" integer not null default 0
) strict;

CREATE TABLE "path" (
  "blob" integer not null,
  "path" blob not null check (length("path") > 0),
  "size" integer not null,
  "mtime" integer not null,
  "inode" integer not null,
  "real" blob not null default x'',
  primary key ("blob", "path")
) strict, without rowid;

CREATE TABLE "pin" ("blob" integer primary key) strict;

CREATE TABLE "presence" (
  "id" integer primary key,
  "groups" integer not null check ("groups" != 0)
) strict;

CREATE TABLE "row" (
  "id" integer primary key,
  "data" blob not null
) strict;

CREATE TABLE "sequence" (
  "id" integer primary key,
  "hash" blob unique not null check (length("hash") = 32),
  "tags" integer not null default 0 check ("tags" >= 0),
  "held" integer not null default 0 check ("held" in (0, 1)),
  "indexed" integer not null default 0 check ("indexed" in (0, 1)),
  "lost" integer not null default 0 check ("lost" in (0, 1))
) strict;

CREATE TABLE "setting" (
  "name" text primary key not null,
  "value" any not null
) strict, without rowid;

CREATE TABLE "tag" (
  "name" blob primary key not null check (length("name") <= 4096),
  "hash" blob not null check (length("hash") = 32),
  "format" integer not null check ("format" in (0, 1)),
  "created" integer not null,
  "expires" integer
) strict, without rowid;

CREATE TABLE "usage" (
  "id" integer primary key check ("id" = 1),
  "blobs" integer not null,
  "partial" integer not null,
  "bytes" integer not null,
  "stored_bytes" integer not null
, "pieces" integer not null default 0, "used" integer not null default 0, "tags" integer not null default 0, "external" integer not null default 0) strict;

CREATE UNIQUE INDEX "blob_hash" on "blob" ("hash") where "hash" is not null;

CREATE INDEX "blob_hidden" on "blob" ("id") where "state" = 0;

CREATE INDEX "blob_lru" on "blob" ("last_used", "id") where "state" != 0 and "protected" = 0 and "stored" > 0;

CREATE INDEX "blob_protected" on "blob" ("id") where "protected" > 0;

CREATE INDEX "child_prefix" on "child" ("prefix");

CREATE INDEX "key_blob" on "key" ("blob");

CREATE INDEX "key_owner" on "key" ("owner", "name", "blob") where "owner" > 0;

CREATE INDEX "owned_blob" on "owned" ("blob");

CREATE INDEX "owned_lru" on "owned" ("owner", "last_used", "blob") where "protected" = 0;

CREATE INDEX "path_inode" on "path" ("inode");

CREATE INDEX "path_path" on "path" ("path");

CREATE INDEX "path_real" on "path" ("real") where "real" > x'';

CREATE INDEX "sequence_unindexed" on "sequence" ("id") where "indexed" = 0;

CREATE INDEX "sequence_unwanted" on "sequence" ("id") where "tags" = 0 and "held" = 0;

CREATE INDEX "tag_expires" on "tag" ("expires") where "expires" > 0;

CREATE INDEX "tag_hash" on "tag" ("hash");

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
    "external",
    strftime('%Y-%m-%d %H:%M:%S', "created" / 1000000000, 'unixepoch') as "created",
    strftime('%Y-%m-%d %H:%M:%S', ("last_used" + ("last_used" < 0) * 4611686018427387904) / 1000000000, 'unixepoch') as "last_used"
  from "blob"
  where "hash" is not null
  order by "blob"."hash";

CREATE VIEW "disown" ("owner", "blob") as select null, null where false;

CREATE VIEW "loosen" ("blob") as select null where false;

CREATE VIEW "own" ("owner", "blob") as select null, null where false;

CREATE VIEW "owners" as
  select cast("name" as text) as "owner", "pieces", "bytes", "quota" from "owner" order by "owner"."name";

CREATE VIEW "paths" as
  select
    cast("path" as text) as "path",
    lower(hex("hash")) as "hash",
    "path"."size" as "size",
    strftime('%Y-%m-%d %H:%M:%S', "mtime" / 1000000000, 'unixepoch') as "modified",
    "inode"
  from "path" join "blob" on "blob"."id" = "path"."blob"
  order by "path"."path";

CREATE VIEW "pieces" as
  select
    cast("key"."name" as text) as "key",
    "size",
    case "state" when 1 then 'partial' else 'complete' end as "state",
    "stored",
    lower(hex("hash")) as "hash",
    cast("owner"."name" as text) as "owner",
    strftime('%Y-%m-%d %H:%M:%S', ("last_used" + ("last_used" < 0) * 4611686018427387904) / 1000000000, 'unixepoch') as "last_used"
  from "key"
  join "blob" on "blob"."id" = "key"."blob"
  left join "owner" on "owner"."id" = "key"."owner"
  order by "key"."name";

CREATE VIEW "protect" ("hash", "format") as select null, null where false;

CREATE VIEW "room" ("bytes") as select null where false;

CREATE VIEW "settings" as
  select "name", "value" from "setting" order by "name";

CREATE VIEW "share" ("blob", "bytes") as select null, null where false;

CREATE VIEW "tags" as
  select
    cast("name" as text) as "tag",
    lower(hex("hash")) as "hash",
    case "format" when 1 then 'hashseq' else 'raw' end as "format",
    strftime('%Y-%m-%d %H:%M:%S', "created" / 1000000000, 'unixepoch') as "created",
    strftime('%Y-%m-%d %H:%M:%S', "expires" / 1000000000, 'unixepoch') as "expires"
  from "tag"
  order by "tag"."name";

CREATE VIEW "unprotect" ("hash", "format") as select null, null where false;

CREATE TRIGGER "blob_delete" after delete on "blob" begin
  delete from "row" where "id" = old."id" << 26;
  update "usage" set
    "blobs" = "blobs" - (old."state" = 2),
    "partial" = "partial" - (old."state" = 1 and old."hash" is not null),
    "bytes" = "bytes" - iif(old."state" = 0, 0, old."size"),
    "stored_bytes" = "stored_bytes" - iif(old."state" = 0, 0, old."stored"),
    "external" = "external" - old."external",
    "used" = "used" - old."stored";
end;

CREATE TRIGGER "blob_delete_claims" after delete on "blob"
when exists (select 1 from "owned" where "blob" = old."id") or exists (select 1 from "key" where "blob" = old."id") begin
  update "owner" set "bytes" = "bytes" - old."stored" where "id" in (select "owner" from "owned" where "blob" = old."id");
  delete from "key" where "blob" = old."id";
  delete from "owned" where "blob" = old."id";
end;

CREATE TRIGGER "blob_delete_gone" after delete on "blob" when old."state" != 0 begin
  insert into "gone" ("what", "blob", "hash", "size") values ('blob', old."id", old."hash", old."size");
end;

CREATE TRIGGER "blob_delete_parts" after delete on "blob"
when old."state" != 2 or old."size" > 16384 or old."protected" > 0 or old."external" > 0 begin
  delete from "row" where "id" between old."id" << 26 and (old."id" << 26) + 67108863;
  delete from "pin" where "blob" = old."id";
  delete from "path" where "blob" = old."id";
  delete from "outboard" where "id" between old."id" << 26 and (old."id" << 26) + 67108863;
  delete from "presence" where "id" between old."id" << 26 and (old."id" << 26) + 67108863;
  delete from "fragment" where "id" between old."id" << 26 and (old."id" << 26) + 67108863;
end;

CREATE TRIGGER "blob_hide" after update of "state" on "blob" when new."state" = 0 and old."state" != 0 begin
  insert into "gone" ("what", "blob", "hash", "size") values ('blob', old."id", old."hash", old."size");
  delete from "pin" where "blob" = old."id";
  delete from "path" where "blob" = old."id";
end;

CREATE TRIGGER "blob_insert" after insert on "blob" begin
  update "usage" set
    "blobs" = "blobs" + (new."state" = 2),
    "partial" = "partial" + (new."state" = 1 and new."hash" is not null),
    "bytes" = "bytes" + iif(new."state" = 0, 0, new."size"),
    "stored_bytes" = "stored_bytes" + iif(new."state" = 0, 0, new."stored"),
    "external" = "external" + new."external",
    "used" = "used" + new."stored";
  insert into "room" values (new."stored");
end;

CREATE TRIGGER "blob_named" after insert on "blob"
when exists (select 1 from "tag" where "hash" = new."hash")
or exists (select 1 from "child" where "prefix" = substr(new."hash", 1, 8)) begin
  update "blob" set "protected" = "protected"
      + (select count(*) from "tag" where "hash" = new."hash")
      + (select count(*) from "child" where "prefix" = substr(new."hash", 1, 8))
    where "id" = new."id";
end;

CREATE TRIGGER "blob_renamed" after update of "hash" on "blob" when new."hash" is not old."hash" and (
  exists (select 1 from "tag" where "hash" in (old."hash", new."hash"))
  or exists (select 1 from "child" where "prefix" in (substr(old."hash", 1, 8), substr(new."hash", 1, 8)))) begin
  update "blob" set "protected" = "protected"
      - (select count(*) from "tag" where "hash" = old."hash")
      - (select count(*) from "child" where "prefix" = substr(old."hash", 1, 8))
      + (select count(*) from "tag" where "hash" = new."hash")
      + (select count(*) from "child" where "prefix" = substr(new."hash", 1, 8))
    where "id" = new."id";
end;

CREATE TRIGGER "blob_update" after update of "state", "hash", "size", "stored", "external" on "blob" begin
  insert into "share" values (new."id", new."stored" - old."stored");
  update "usage" set
    "blobs" = "blobs" + (new."state" = 2) - (old."state" = 2),
    "partial" = "partial" + (new."state" = 1 and new."hash" is not null) - (old."state" = 1 and old."hash" is not null),
    "bytes" = "bytes" + iif(new."state" = 0, 0, new."size") - iif(old."state" = 0, 0, old."size"),
    "stored_bytes" = "stored_bytes" + iif(new."state" = 0, 0, new."stored") - iif(old."state" = 0, 0, old."stored"),
    "external" = "external" + new."external" - old."external",
    "used" = "used" + new."stored" - old."stored";
  insert into "room" values (new."stored" - old."stored");
end;

CREATE TRIGGER "blob_used" after update of "last_used", "protected", "stored" on "blob"
when new."last_used" != old."last_used" or new."protected" != old."protected" or (new."stored" = 0) != (old."stored" = 0) begin
  update "owned" set "last_used" = new."last_used", "protected" = new."protected" + (new."stored" = 0) where "blob" = new."id";
end;

CREATE TRIGGER "child_delete" after delete on "child" begin
  update "blob" set "protected" = "protected" - 1
    where "hash" between old."prefix" and cast(old."prefix" || x'ffffffffffffffffffffffffffffffffffffffffffffffff' as blob);
  insert into "loosen" select "id" from "blob"
    where "hash" between old."prefix" and cast(old."prefix" || x'ffffffffffffffffffffffffffffffffffffffffffffffff' as blob);
end;

CREATE TRIGGER "child_insert" after insert on "child" begin
  update "blob" set "protected" = "protected" + 1
    where "hash" between new."prefix" and cast(new."prefix" || x'ffffffffffffffffffffffffffffffffffffffffffffffff' as blob);
end;

CREATE TRIGGER "disown_insert" instead of insert on "disown" when new."owner" is not null begin
  update "owned" set "keys" = "keys" - 1 where "owner" = new."owner" and "blob" = new."blob";
  delete from "owned" where "owner" = new."owner" and "blob" = new."blob" and "keys" = 0 and "direct" = 0;
end;

CREATE TRIGGER "gone_victim" after insert on "gone" when new."what" = 'victim' begin
  delete from "blob" where "id" = new."blob" and (new."owner" is null or "added" = 0
    and not exists (select 1 from "key" where "blob" = new."blob" and "owner" is not new."owner")
    and not exists (select 1 from "owned" where "blob" = new."blob" and "owner" != new."owner"));
  delete from "key" where "blob" = new."blob" and "owner" = new."owner";
  delete from "owned" where "blob" = new."blob" and "owner" = new."owner";
end;

CREATE TRIGGER "key_blob" after update of "blob" on "key" when new."blob" != old."blob" begin
  insert into "disown" values (old."owner", old."blob");
  insert into "own" values (new."owner", new."blob");
  insert into "loosen" values (old."blob");
end;

CREATE TRIGGER "key_delete" after delete on "key" begin
  insert into "gone" ("what", "blob", "owner", "hash", "size", "name") values ('key', old."blob", old."owner",
    (select "hash" from "blob" where "id" = old."blob"), (select "size" from "blob" where "id" = old."blob"), old."name");
  update "usage" set "pieces" = "pieces" - 1;
  update "owner" set "pieces" = "pieces" - 1 where "id" = old."owner";
  insert into "disown" values (old."owner", old."blob");
  insert into "loosen" values (old."blob");
end;

CREATE TRIGGER "key_insert" after insert on "key" begin
  update "usage" set "pieces" = "pieces" + 1;
  update "owner" set "pieces" = "pieces" + 1 where "id" = new."owner";
  insert into "own" values (new."owner", new."blob");
end;

CREATE TRIGGER "loosen_insert" instead of insert on "loosen" begin
  update "blob" set "state" = 0, "hash" = null, "stored" = 0, "external" = 0
    where "id" = new."blob" and "added" = 0 and "state" != 0 and "protected" = 0
    and not exists (select 1 from "key" where "blob" = new."blob")
    and not exists (select 1 from "owned" where "blob" = new."blob");
end;

CREATE TRIGGER "own_insert" instead of insert on "own" when new."owner" is not null begin
  insert into "owned" ("owner", "blob", "keys", "last_used", "protected")
    select new."owner", "id", 1, "last_used", "protected" + ("stored" = 0) from "blob" where "id" = new."blob"
    on conflict do update set "keys" = "keys" + 1;
end;

CREATE TRIGGER "owned_delete" after delete on "owned" begin
  update "owner" set "bytes" = "bytes" - coalesce((select "stored" from "blob" where "id" = old."blob"), 0)
    where "id" = old."owner";
  insert into "loosen" values (old."blob");
end;

CREATE TRIGGER "owned_insert" after insert on "owned" begin
  update "owner" set "bytes" = "bytes" + (select "stored" from "blob" where "id" = new."blob")
    where "id" = new."owner";
end;

CREATE TRIGGER "owner_delete" after delete on "owner" begin
  delete from "key" where "owner" = old."id";
  delete from "owned" where "owner" = old."id";
end;

CREATE TRIGGER "owner_evict" after update of "bytes", "quota" on "owner"
when new."bytes" > new."quota" and (new."bytes" > old."bytes" or new."quota" is not old."quota")
begin
  insert into "gone" ("what", "blob", "owner")
    select 'victim', "id", new."id" from (
      with recursive "victim" ("last_used", "id", "excess") as (
        select * from (
          select "o"."last_used", "o"."blob", new."bytes" - new."quota" - (select "stored" from "blob" where "id" = "o"."blob")
          from "owned" "o" indexed by "owned_lru"
          where "o"."owner" = new."id" and "o"."protected" = 0
          order by "o"."last_used", "o"."blob" limit 1)
        union all
        select "o"."last_used", "o"."blob", "v"."excess" - (select "stored" from "blob" where "id" = "o"."blob")
        from "victim" "v" join "owned" "o" on "o"."owner" = new."id" and "o"."blob" = (
          select "n"."blob" from "owned" "n" indexed by "owned_lru"
          where "n"."owner" = new."id" and "n"."protected" = 0
          and ("n"."last_used", "n"."blob") > ("v"."last_used", "v"."id")
          order by "n"."last_used", "n"."blob" limit 1)
        where "v"."excess" > 0)
      select "id" from "victim");
  select raise(abort, 'the quota is full of what is protected') from "owner"
    where "id" = new."id" and "bytes" > "quota";
end;

CREATE TRIGGER "pin_delete" after delete on "pin" begin
  update "blob" set "protected" = "protected" - 1 where "id" = old."blob";
  insert into "loosen" values (old."blob");
end;

CREATE TRIGGER "pin_insert" after insert on "pin" begin
  update "blob" set "protected" = "protected" + 1 where "id" = new."blob";
end;

CREATE TRIGGER "protect_insert" instead of insert on "protect" begin
  update "blob" set "protected" = "protected" + 1 where "hash" = new."hash";
  insert into "sequence" ("hash", "tags") select new."hash", 1 where new."format" = 1
    on conflict ("hash") do update set "indexed" = "indexed" and ("tags" or "held"), "tags" = "tags" + 1;
end;

CREATE TRIGGER "room_insert" instead of insert on "room"
when new."bytes" > 0 and (select "used" from "usage") > (select "value" from "setting" where "name" = 'capacity')
begin
  insert into "gone" ("what", "blob")
    select 'victim', "id" from (
      with recursive "victim" ("last_used", "id", "excess") as (
        select * from (
          select "last_used", "id", (select "used" from "usage") - "stored" - (select "value" from "setting" where "name" = 'capacity')
          from "blob" indexed by "blob_lru"
          where "state" != 0 and "protected" = 0 and "stored" > 0
          order by "last_used", "id" limit 1)
        union all
        select "b"."last_used", "b"."id", "v"."excess" - "b"."stored"
        from "victim" "v" join "blob" "b" on "b"."id" = (
          select "n"."id" from "blob" "n" indexed by "blob_lru"
          where "n"."state" != 0 and "n"."protected" = 0 and "n"."stored" > 0
          and ("n"."last_used", "n"."id") > ("v"."last_used", "v"."id")
          order by "n"."last_used", "n"."id" limit 1)
        where "v"."excess" > 0)
      select "id" from "victim");
  select raise(abort, 'the capacity is full of what is protected') from "usage"
    where "used" > (select "value" from "setting" where "name" = 'capacity');
end;

CREATE TRIGGER "setting_insert" after insert on "setting" when new."name" = 'capacity' begin
  select raise(abort, 'the capacity is a number of bytes') where typeof(new."value") != 'integer' or new."value" < 0;
  insert into "room" values (1);
end;

CREATE TRIGGER "setting_update" after update on "setting" when new."name" = 'capacity' begin
  select raise(abort, 'the capacity is a number of bytes') where typeof(new."value") != 'integer' or new."value" < 0;
  insert into "room" values (1);
end;

CREATE TRIGGER "share_insert" instead of insert on "share"
when new."bytes" != 0 and exists (select 1 from "owned" where "blob" = new."blob") begin
  update "owner" set "bytes" = "bytes" + new."bytes" where "id" in (select "owner" from "owned" where "blob" = new."blob");
end;

CREATE TRIGGER "tag_delete" after delete on "tag" begin
  update "usage" set "tags" = "tags" - 1;
  insert into "unprotect" values (old."hash", old."format");
end;

CREATE TRIGGER "tag_insert" after insert on "tag" begin
  update "usage" set "tags" = "tags" + 1;
  insert into "protect" values (new."hash", new."format");
end;

CREATE TRIGGER "tag_update" after update of "hash", "format" on "tag"
when new."hash" != old."hash" or new."format" != old."format" begin
  insert into "protect" values (new."hash", new."format");
  insert into "unprotect" values (old."hash", old."format");
end;

CREATE TRIGGER "unprotect_insert" instead of insert on "unprotect" begin
  update "sequence" set "tags" = "tags" - 1 where "hash" = new."hash" and new."format" = 1;
  update "blob" set "protected" = "protected" - 1 where "hash" = new."hash";
  insert into "loosen" select "id" from "blob" where "hash" = new."hash";
end;
