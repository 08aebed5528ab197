delete from "pin";
