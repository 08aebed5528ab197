select exists (select 1 from "tag" where "hash" = :hash) or exists (select 1 from "child" where "prefix" = substr(:hash, 1, 8)) as "tagged";
