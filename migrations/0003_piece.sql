-- Pieces, owners, and a capacity that the triggers below enforce.

-- added: somebody has put the blob here as such. One that came as a piece
-- (added = 0) goes with the last key and the last owner that has it.
-- protected: by how many pins and tags it is kept from eviction.
alter table "blob" add column "added" integer not null default 1 check ("added" in (0, 1));
alter table "blob" add column "protected" integer not null default 0 check ("protected" >= 0);

-- What may be evicted, in the order in which it is.
create index "blob_lru" on "blob" ("last_used", "id") where "state" != 0 and "protected" = 0 and "stored" > 0;

create index "blob_protected" on "blob" ("id") where "protected" > 0;

-- Which bytes of a group that a piece has only a part of are written:
-- A..B, half open, ascending, disjoint, not touching, joined by commas. The
-- group's row ends with the last of them; a gap in it means nothing.
-- id as that of the row. A group that is there whole is marked in presence.
create table "fragment" (
  "id" integer primary key,
  "ranges" text not null
) strict;

-- A piece: a caller's name, any bytes, for a blob. While the piece is being
-- written the blob has state 1 and no hash; one that is complete has one.
create table "key" (
  "name" blob primary key not null check (length("name") between 1 and 4096),
  "blob" integer not null,
  "owner" integer
) strict, without rowid;
create index "key_blob" on "key" ("blob");
create index "key_owner" on "key" ("owner", "name", "blob") where "owner" > 0;

-- pieces: keys it has. bytes: stored of all blobs it has, each counted once.
create table "owner" (
  "id" integer primary key,
  "name" blob unique not null check (length("name") between 1 and 4096),
  "quota" integer check ("quota" >= 0),
  "pieces" integer not null default 0,
  "bytes" integer not null default 0
) strict;

-- Which blobs an owner has: by so many keys, and directly or not. last_used and
-- protected are the blob's.
create table "owned" (
  "owner" integer not null,
  "blob" integer not null,
  "keys" integer not null default 0 check ("keys" >= 0),
  "direct" integer not null default 0 check ("direct" in (0, 1)),
  "last_used" integer not null,
  "protected" integer not null,
  primary key ("owner", "blob")
) strict, without rowid;
create index "owned_blob" on "owned" ("blob");
create index "owned_lru" on "owned" ("owner", "last_used", "blob") where "protected" = 0;

-- What memory protects (open readers, pins, temp tags), as far as a change that
-- would take it away has come across it. Empty after an Open.
create table "pin" ("blob" integer primary key) strict;

create trigger "pin_insert" after insert on "pin" begin
  update "blob" set "protected" = "protected" + 1 where "id" = new."blob";
end;
create trigger "pin_delete" after delete on "pin" begin
  update "blob" set "protected" = "protected" - 1 where "id" = old."blob";
  insert into "loosen" values (old."blob");
end;

-- What a transaction has taken away; the writer reads it and empties it before
-- it commits. what: victim (to be evicted, from everybody or from an owner),
-- blob, key.
create table "gone" (
  "seq" integer primary key,
  "what" text not null check ("what" in ('victim', 'blob', 'key')),
  "blob" integer not null,
  "owner" integer,
  "hash" blob,
  "size" integer,
  "name" blob
) strict;

create trigger "gone_victim" after insert on "gone" when new."what" = 'victim' begin
  delete from "blob" where "id" = new."blob" and (new."owner" is null or "added" = 0
    and not exists (select 1 from "key" where "blob" = new."blob" and "owner" is not new."owner")
    and not exists (select 1 from "owned" where "blob" = new."blob" and "owner" != new."owner"));
  delete from "key" where "blob" = new."blob" and "owner" = new."owner";
  delete from "owned" where "blob" = new."blob" and "owner" = new."owner";
end;

-- Procedures, for the triggers: what follows of an owner having one more, or
-- one fewer, key for a blob, and of a blob having lost one who has it or protects
-- it. The last one takes a blob along that came as a piece.
create view "own" ("owner", "blob") as select null, null where false;
create trigger "own_insert" instead of insert on "own" when new."owner" is not null begin
  insert into "owned" ("owner", "blob", "keys", "last_used", "protected")
    select new."owner", "id", 1, "last_used", "protected" from "blob" where "id" = new."blob"
    on conflict do update set "keys" = "keys" + 1;
end;
create view "disown" ("owner", "blob") as select null, null where false;
create trigger "disown_insert" instead of insert on "disown" when new."owner" is not null begin
  update "owned" set "keys" = "keys" - 1 where "owner" = new."owner" and "blob" = new."blob";
  delete from "owned" where "owner" = new."owner" and "blob" = new."blob" and "keys" = 0 and "direct" = 0;
end;
create view "loosen" ("blob") as select null where false;
create trigger "loosen_insert" instead of insert on "loosen" begin
  update "blob" set "state" = 0, "hash" = null, "stored" = 0
    where "id" = new."blob" and "added" = 0 and "state" != 0 and "protected" = 0
    and not exists (select 1 from "key" where "blob" = new."blob")
    and not exists (select 1 from "owned" where "blob" = new."blob");
end;

create trigger "key_insert" after insert on "key" begin
  update "usage" set "pieces" = "pieces" + 1;
  update "owner" set "pieces" = "pieces" + 1 where "id" = new."owner";
  insert into "own" values (new."owner", new."blob");
end;
create trigger "key_delete" after delete on "key" begin
  insert into "gone" ("what", "blob", "owner", "hash", "size", "name") values ('key', old."blob", old."owner",
    (select "hash" from "blob" where "id" = old."blob"), (select "size" from "blob" where "id" = old."blob"), old."name");
  update "usage" set "pieces" = "pieces" - 1;
  update "owner" set "pieces" = "pieces" - 1 where "id" = old."owner";
  insert into "disown" values (old."owner", old."blob");
  insert into "loosen" values (old."blob");
end;
create trigger "key_blob" after update of "blob" on "key" when new."blob" != old."blob" begin
  insert into "disown" values (old."owner", old."blob");
  insert into "own" values (new."owner", new."blob");
  insert into "loosen" values (old."blob");
end;

create trigger "owner_delete" after delete on "owner" begin
  delete from "key" where "owner" = old."id";
  delete from "owned" where "owner" = old."id";
end;

create trigger "owned_insert" after insert on "owned" begin
  update "owner" set "bytes" = "bytes" + (select "stored" from "blob" where "id" = new."blob")
    where "id" = new."owner";
end;
create trigger "owned_delete" after delete on "owned" begin
  update "owner" set "bytes" = "bytes" - coalesce((select "stored" from "blob" where "id" = old."blob"), 0)
    where "id" = old."owner";
  insert into "loosen" values (old."blob");
end;

-- used: stored of all blobs, hidden ones included: what the capacity bounds.
alter table "usage" add column "pieces" integer not null default 0;
alter table "usage" add column "used" integer not null default 0;
update "blob" set "stored" = 0 where "state" = 0;
update "usage" set "used" = (select coalesce(sum("stored"), 0) from "blob");

drop trigger "blob_usage_insert";
drop trigger "blob_usage_delete";
drop trigger "blob_usage_update";

create trigger "blob_insert" after insert on "blob" begin
  update "usage" set
    "blobs" = "blobs" + (new."state" = 2),
    "partial" = "partial" + (new."state" = 1 and new."hash" is not null),
    "bytes" = "bytes" + iif(new."state" = 0, 0, new."size"),
    "stored_bytes" = "stored_bytes" + iif(new."state" = 0, 0, new."stored"),
    "used" = "used" + new."stored";
end;

-- A blob takes along all that belongs to it.
create trigger "blob_delete" after delete on "blob" begin
  insert into "gone" ("what", "blob", "hash", "size")
    select 'blob', old."id", old."hash", old."size" where old."state" != 0;
  update "owner" set "bytes" = "bytes" - old."stored" where "id" in (select "owner" from "owned" where "blob" = old."id");
  delete from "key" where "blob" = old."id";
  delete from "owned" where "blob" = old."id";
  delete from "pin" where "blob" = old."id";
  delete from "row" where "id" between old."id" << 26 and (old."id" << 26) + 67108863;
  delete from "outboard" where "id" between old."id" << 26 and (old."id" << 26) + 67108863;
  delete from "presence" where "id" between old."id" << 26 and (old."id" << 26) + 67108863;
  delete from "fragment" where "id" between old."id" << 26 and (old."id" << 26) + 67108863;
  update "usage" set
    "blobs" = "blobs" - (old."state" = 2),
    "partial" = "partial" - (old."state" = 1 and old."hash" is not null),
    "bytes" = "bytes" - iif(old."state" = 0, 0, old."size"),
    "stored_bytes" = "stored_bytes" - iif(old."state" = 0, 0, old."stored"),
    "used" = "used" - old."stored";
end;

create trigger "blob_update" after update of "state", "hash", "size", "stored" on "blob" begin
  update "owner" set "bytes" = "bytes" + new."stored" - old."stored"
    where new."stored" != old."stored" and "id" in (select "owner" from "owned" where "blob" = new."id");
  update "usage" set
    "blobs" = "blobs" + (new."state" = 2) - (old."state" = 2),
    "partial" = "partial" + (new."state" = 1 and new."hash" is not null) - (old."state" = 1 and old."hash" is not null),
    "bytes" = "bytes" + iif(new."state" = 0, 0, new."size") - iif(old."state" = 0, 0, old."size"),
    "stored_bytes" = "stored_bytes" + iif(new."state" = 0, 0, new."stored") - iif(old."state" = 0, 0, old."stored"),
    "used" = "used" + new."stored" - old."stored";
end;

-- A blob that is hidden (its rows are removed later) is gone.
create trigger "blob_hide" after update of "state" on "blob" when new."state" = 0 and old."state" != 0 begin
  insert into "gone" ("what", "blob", "hash", "size") values ('blob', old."id", old."hash", old."size");
  delete from "pin" where "blob" = old."id";
end;

create trigger "blob_used" after update of "last_used", "protected" on "blob"
when new."last_used" != old."last_used" or new."protected" != old."protected" begin
  update "owned" set "last_used" = new."last_used", "protected" = new."protected" where "blob" = new."id";
end;

-- Eviction, when used has grown above the capacity: the blobs used longest ago,
-- one after the other along the index until enough is free. What is then still
-- above it is protected, and the change is refused.
create trigger "usage_evict" after update of "used" on "usage"
when new."used" >= old."used" and new."used" > (select "value" from "setting" where "name" = 'capacity')
begin
  insert into "gone" ("what", "blob")
    select 'victim', "id" from (
      with recursive "victim" ("last_used", "id", "excess") as (
        select * from (
          select "last_used", "id", new."used" - "stored" - (select "value" from "setting" where "name" = 'capacity')
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

-- The same for an owner that has grown above its quota: what it alone has goes,
-- the rest it only has no more.
create trigger "owner_evict" after update of "bytes", "quota" on "owner"
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

-- A capacity holds at once, and for everybody who writes.
create trigger "setting_insert" after insert on "setting" when new."name" = 'capacity' begin
  select raise(abort, 'the capacity is a number of bytes') where typeof(new."value") != 'integer' or new."value" < 0;
  update "usage" set "used" = "used";
end;
create trigger "setting_update" after update on "setting" when new."name" = 'capacity' begin
  select raise(abort, 'the capacity is a number of bytes') where typeof(new."value") != 'integer' or new."value" < 0;
  update "usage" set "used" = "used";
end;

-- For people.
drop view "blobs";
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
    strftime('%Y-%m-%d %H:%M:%S', ("last_used" + ("last_used" < 0) * 4611686018427387904) / 1000000000, 'unixepoch') as "last_used"
  from "blob"
  where "hash" is not null
  order by "blob"."hash";

create view "pieces" as
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

create view "owners" as
  select cast("name" as text) as "owner", "pieces", "bytes", "quota" from "owner" order by "owner"."name";
