-- What each of the hub's roles may do. The door appends, followers keep views, readers read; none may change or remove what the log holds.
grant usage on schema log, intake to hub_door, hub_follow, hub_read;
grant select on all tables in schema log, intake to hub_door, hub_follow, hub_read;
grant insert on log.event, log.delivery to hub_door;
grant insert, update on intake.seen to hub_door;
grant insert, update on intake.lane, intake.decided to hub_door;
grant insert, update on intake.moved to hub_follow;
