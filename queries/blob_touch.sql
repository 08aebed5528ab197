-- Below 0, it is to be evicted first if it has not been used since: 2^62 are taken
-- from the time of that. See "evictFirst".
update "blob" set "last_used" = case
  when :now >= 0 then max("last_used", :now)
  when "state" = 2 and "last_used" < :now + 4611686018427387904 then :now
  else "last_used"
end where "id" = :id;
