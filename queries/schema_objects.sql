select "type" as "type", "name" as "name", "sql" as "sql"
from "sqlite_schema"
where "name" not like 'sqlite\_%' escape '\'
order by "type", "name";
