delete from "gone";
