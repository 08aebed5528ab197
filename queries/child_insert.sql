insert into "child" ("sequence", "prefix") values (:sequence, :prefix) on conflict do nothing;
