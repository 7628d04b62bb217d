-- What each of the hub's roles may do. The door appends, followers keep views, readers read, hub_people finds who shows a token; none may change
-- or remove what the log holds, and none may make a token.
grant usage on schema log, intake to hub_door, hub_follow, hub_read;
grant select on all tables in schema log, intake to hub_door, hub_follow, hub_read;
grant insert on log.event, log.delivery to hub_door;
grant insert, update on intake.seen to hub_door;
grant insert, update on intake.lane, intake.decided to hub_door;
grant insert, update on intake.moved to hub_follow;
grant usage on schema log, security to hub_people;
grant select on log.event, security.token to hub_people;
grant update (seen_at) on security.token to hub_people;
