-- Tags, what tagged hash sequences protect, and files by reference.

-- A tag: a name, any bytes, for content, whether that is there or not. expires:
-- when it may be removed, in nanoseconds since the Unix epoch; null is never.
create table "tag" (
  "name" blob primary key not null check (length("name") <= 4096),
  "hash" blob not null check (length("hash") = 32),
  "format" integer not null check ("format" in (0, 1)),
  "created" integer not null,
  "expires" integer
) strict, without rowid;
create index "tag_hash" on "tag" ("hash");
create index "tag_expires" on "tag" ("expires") where "expires" > 0;

-- A hash sequence that protects its children: by so many tags, and by a temp tag
-- of the process that writes (held). indexed: the children of all that is there of
-- it are in the table child; whoever adds to it adds them, in the same transaction.
-- lost: some of it was damaged before that. One without tags that is not held
-- protects nobody any more; it is removed, with its children, a part at a time.
create table "sequence" (
  "id" integer primary key,
  "hash" blob unique not null check (length("hash") = 32),
  "tags" integer not null default 0 check ("tags" >= 0),
  "held" integer not null default 0 check ("held" in (0, 1)),
  "indexed" integer not null default 0 check ("indexed" in (0, 1)),
  "lost" integer not null default 0 check ("lost" in (0, 1))
) strict;
create index "sequence_unindexed" on "sequence" ("id") where "indexed" = 0;
create index "sequence_unwanted" on "sequence" ("id") where "tags" = 0 and "held" = 0;

-- A child of a sequence, whether it is there or not. prefix: the first 8 bytes of
-- its hash; what shares them, one in 2^64, is protected with it.
create table "child" (
  "sequence" integer not null,
  "prefix" blob not null check (length("prefix") = 8),
  primary key ("sequence", "prefix")
) strict, without rowid;
create index "child_prefix" on "child" ("prefix");

-- external: bytes of the blob that are not in rows but in the files that the
-- table path names. A group that has a row is read from there.
alter table "blob" add column "external" integer not null default 0 check ("external" >= 0);

-- A file outside that has a blob's content from its first byte on, by its absolute
-- path, and what it was like when it was last seen to: the size in bytes, the time
-- of its last change in nanoseconds since the Unix epoch, its number in the file
-- system (0 where there is none). real: its path without symbolic links then, empty
-- if that is the path itself.
create table "path" (
  "blob" integer not null,
  "path" blob not null check (length("path") > 0),
  "size" integer not null,
  "mtime" integer not null,
  "inode" integer not null,
  "real" blob not null default x'',
  primary key ("blob", "path")
) strict, without rowid;
create index "path_path" on "path" ("path");
create index "path_inode" on "path" ("inode");
create index "path_real" on "path" ("real") where "real" > x'';

alter table "usage" add column "tags" integer not null default 0;
alter table "usage" add column "external" integer not null default 0;

-- A tag, and a child of a sequence, each protect the blob of that hash once.
create trigger "tag_insert" after insert on "tag" begin
  update "usage" set "tags" = "tags" + 1;
  insert into "protect" values (new."hash", new."format");
end;
create trigger "tag_delete" after delete on "tag" begin
  update "usage" set "tags" = "tags" - 1;
  insert into "unprotect" values (old."hash", old."format");
end;
create trigger "tag_update" after update of "hash", "format" on "tag"
when new."hash" != old."hash" or new."format" != old."format" begin
  insert into "protect" values (new."hash", new."format");
  insert into "unprotect" values (old."hash", old."format");
end;

create view "protect" ("hash", "format") as select null, null where false;
create trigger "protect_insert" instead of insert on "protect" begin
  update "blob" set "protected" = "protected" + 1 where "hash" = new."hash";
  insert into "sequence" ("hash", "tags") select new."hash", 1 where new."format" = 1
    on conflict ("hash") do update set "indexed" = "indexed" and ("tags" or "held"), "tags" = "tags" + 1;
end;
create view "unprotect" ("hash", "format") as select null, null where false;
create trigger "unprotect_insert" instead of insert on "unprotect" begin
  update "sequence" set "tags" = "tags" - 1 where "hash" = new."hash" and new."format" = 1;
  update "blob" set "protected" = "protected" - 1 where "hash" = new."hash";
  insert into "loosen" select "id" from "blob" where "hash" = new."hash";
end;

create trigger "child_insert" after insert on "child" begin
  update "blob" set "protected" = "protected" + 1
    where "hash" between new."prefix" and cast(new."prefix" || x'ffffffffffffffffffffffffffffffffffffffffffffffff' as blob);
end;
create trigger "child_delete" after delete on "child" begin
  update "blob" set "protected" = "protected" - 1
    where "hash" between old."prefix" and cast(old."prefix" || x'ffffffffffffffffffffffffffffffffffffffffffffffff' as blob);
  insert into "loosen" select "id" from "blob"
    where "hash" between old."prefix" and cast(old."prefix" || x'ffffffffffffffffffffffffffffffffffffffffffffffff' as blob);
end;

-- A blob that comes to have a hash is protected by what names that already; one
-- that loses it is not any more.
create trigger "blob_named" after insert on "blob"
when exists (select 1 from "tag" where "hash" = new."hash")
or exists (select 1 from "child" where "prefix" = substr(new."hash", 1, 8)) begin
  update "blob" set "protected" = "protected"
      + (select count(*) from "tag" where "hash" = new."hash")
      + (select count(*) from "child" where "prefix" = substr(new."hash", 1, 8))
    where "id" = new."id";
end;
create trigger "blob_renamed" after update of "hash" on "blob" when new."hash" is not old."hash" and (
  exists (select 1 from "tag" where "hash" in (old."hash", new."hash"))
  or exists (select 1 from "child" where "prefix" in (substr(old."hash", 1, 8), substr(new."hash", 1, 8)))) begin
  update "blob" set "protected" = "protected"
      - (select count(*) from "tag" where "hash" = old."hash")
      - (select count(*) from "child" where "prefix" = substr(old."hash", 1, 8))
      + (select count(*) from "tag" where "hash" = new."hash")
      + (select count(*) from "child" where "prefix" = substr(new."hash", 1, 8))
    where "id" = new."id";
end;
-- As before, with external and path, and so that SQLite has less to do: a table
-- without triggers is updated in one pass, and what most blobs do not have is not
-- looked for.
drop trigger "usage_evict";
-- share: what the owners of a blob have more of it now. room: what is used more.
create view "share" ("blob", "bytes") as select null, null where false;
create trigger "share_insert" instead of insert on "share"
when new."bytes" != 0 and exists (select 1 from "owned" where "blob" = new."blob") begin
  update "owner" set "bytes" = "bytes" + new."bytes" where "id" in (select "owner" from "owned" where "blob" = new."blob");
end;
create view "room" ("bytes") as select null where false;
create trigger "room_insert" instead of insert on "room"
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

drop trigger "setting_insert";
create trigger "setting_insert" after insert on "setting" when new."name" = 'capacity' begin
  select raise(abort, 'the capacity is a number of bytes') where typeof(new."value") != 'integer' or new."value" < 0;
  insert into "room" values (1);
end;
drop trigger "setting_update";
create trigger "setting_update" after update on "setting" when new."name" = 'capacity' begin
  select raise(abort, 'the capacity is a number of bytes') where typeof(new."value") != 'integer' or new."value" < 0;
  insert into "room" values (1);
end;

drop trigger "blob_insert";
create trigger "blob_insert" after insert on "blob" begin
  update "usage" set
    "blobs" = "blobs" + (new."state" = 2),
    "partial" = "partial" + (new."state" = 1 and new."hash" is not null),
    "bytes" = "bytes" + iif(new."state" = 0, 0, new."size"),
    "stored_bytes" = "stored_bytes" + iif(new."state" = 0, 0, new."stored"),
    "external" = "external" + new."external",
    "used" = "used" + new."stored";
  insert into "room" values (new."stored");
end;

drop trigger "blob_delete";
create trigger "blob_delete" after delete on "blob" begin
  delete from "row" where "id" = old."id" << 26;
  update "usage" set
    "blobs" = "blobs" - (old."state" = 2),
    "partial" = "partial" - (old."state" = 1 and old."hash" is not null),
    "bytes" = "bytes" - iif(old."state" = 0, 0, old."size"),
    "stored_bytes" = "stored_bytes" - iif(old."state" = 0, 0, old."stored"),
    "external" = "external" - old."external",
    "used" = "used" - old."stored";
end;
create trigger "blob_delete_gone" after delete on "blob" when old."state" != 0 begin
  insert into "gone" ("what", "blob", "hash", "size") values ('blob', old."id", old."hash", old."size");
end;
create trigger "blob_delete_claims" after delete on "blob"
when exists (select 1 from "owned" where "blob" = old."id") or exists (select 1 from "key" where "blob" = old."id") begin
  update "owner" set "bytes" = "bytes" - old."stored" where "id" in (select "owner" from "owned" where "blob" = old."id");
  delete from "key" where "blob" = old."id";
  delete from "owned" where "blob" = old."id";
end;
create trigger "blob_delete_parts" after delete on "blob"
when old."state" != 2 or old."size" > 16384 or old."protected" > 0 or old."external" > 0 begin
  delete from "row" where "id" between old."id" << 26 and (old."id" << 26) + 67108863;
  delete from "pin" where "blob" = old."id";
  delete from "path" where "blob" = old."id";
  delete from "outboard" where "id" between old."id" << 26 and (old."id" << 26) + 67108863;
  delete from "presence" where "id" between old."id" << 26 and (old."id" << 26) + 67108863;
  delete from "fragment" where "id" between old."id" << 26 and (old."id" << 26) + 67108863;
end;

drop trigger "blob_update";
create trigger "blob_update" after update of "state", "hash", "size", "stored", "external" on "blob" begin
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

-- A quota passes over what has no bytes in the database, too: to take it away would
-- free nothing. In owned, that counts as protected.
-- blob_used comes after blob_update, because of two triggers the later one runs
-- first, and a quota must not be kept by a use that is not the last.
update "owned" set "protected" = (select "protected" + ("stored" = 0) from "blob" where "id" = "owned"."blob");
drop trigger "blob_used";
create trigger "blob_used" after update of "last_used", "protected", "stored" on "blob"
when new."last_used" != old."last_used" or new."protected" != old."protected" or (new."stored" = 0) != (old."stored" = 0) begin
  update "owned" set "last_used" = new."last_used", "protected" = new."protected" + (new."stored" = 0) where "blob" = new."id";
end;
drop trigger "own_insert";
create trigger "own_insert" instead of insert on "own" when new."owner" is not null begin
  insert into "owned" ("owner", "blob", "keys", "last_used", "protected")
    select new."owner", "id", 1, "last_used", "protected" + ("stored" = 0) from "blob" where "id" = new."blob"
    on conflict do update set "keys" = "keys" + 1;
end;

-- What nobody has any more loses what it has outside, too.
drop trigger "loosen_insert";
create trigger "loosen_insert" instead of insert on "loosen" begin
  update "blob" set "state" = 0, "hash" = null, "stored" = 0, "external" = 0
    where "id" = new."blob" and "added" = 0 and "state" != 0 and "protected" = 0
    and not exists (select 1 from "key" where "blob" = new."blob")
    and not exists (select 1 from "owned" where "blob" = new."blob");
end;
drop trigger "blob_hide";
create trigger "blob_hide" after update of "state" on "blob" when new."state" = 0 and old."state" != 0 begin
  insert into "gone" ("what", "blob", "hash", "size") values ('blob', old."id", old."hash", old."size");
  delete from "pin" where "blob" = old."id";
  delete from "path" where "blob" = old."id";
end;

-- For people.
create view "tags" as
  select
    cast("name" as text) as "tag",
    lower(hex("hash")) as "hash",
    case "format" when 1 then 'hashseq' else 'raw' end as "format",
    strftime('%Y-%m-%d %H:%M:%S', "created" / 1000000000, 'unixepoch') as "created",
    strftime('%Y-%m-%d %H:%M:%S', "expires" / 1000000000, 'unixepoch') as "expires"
  from "tag"
  order by "tag"."name";

create view "paths" as
  select
    cast("path" as text) as "path",
    lower(hex("hash")) as "hash",
    "path"."size" as "size",
    strftime('%Y-%m-%d %H:%M:%S', "mtime" / 1000000000, 'unixepoch') as "modified",
    "inode"
  from "path" join "blob" on "blob"."id" = "path"."blob"
  order by "path"."path";

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
    "external",
    strftime('%Y-%m-%d %H:%M:%S', "created" / 1000000000, 'unixepoch') as "created",
    strftime('%Y-%m-%d %H:%M:%S', ("last_used" + ("last_used" < 0) * 4611686018427387904) / 1000000000, 'unixepoch') as "last_used"
  from "blob"
  where "hash" is not null
  order by "blob"."hash";
