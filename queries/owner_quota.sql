update "owner" set "quota" = :quota where "id" = :id;
