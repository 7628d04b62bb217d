-- The log and what is kept beside it. `event` and `delivery` are append-only: by trigger for everybody, by right for the hub's roles.
create schema if not exists log;
create schema if not exists intake;

-- One row a fact. position: contiguous from 1, given inside the append lock. (stream, version): contiguous from 1 in each stream.
-- key: the first 16 bytes of sha256(source, business key): the receipt that makes a fact happen once.
create table if not exists log.event (
    position       bigint primary key,
    stream         text        not null,
    version        bigint      not null,
    type           text        not null,
    schema_version int         not null,
    key            uuid        not null unique,
    digest         bytea       not null,
    source         text        not null,
    business_key   text        not null,
    occurred_at    timestamptz not null,
    effective_at   timestamptz not null,
    recorded_at    timestamptz not null,
    meta           bytea       not null,
    data           bytea       not null,
    unique (stream, version)
);

-- Every delivery whole, by content, before anything looks into it.
create table if not exists log.delivery (
    sha256      bytea primary key,
    body        bytea       not null,
    transport   text        not null,
    headers     bytea       not null,
    received_at timestamptz not null
);

create or replace function log.refuse() returns trigger language plpgsql as $$
begin
    raise exception 'the log is append-only: % on %.% is refused', tg_op, tg_table_schema, tg_table_name
        using hint = 'a correction is a new event', errcode = 'insufficient_privilege';
end $$;

create or replace trigger append_only before update or delete or truncate on log.event for each statement execute function log.refuse();
create or replace trigger append_only before update or delete or truncate on log.delivery for each statement execute function log.refuse();

-- How often the same held bytes came again: counted beside the log, in no digest, not rebuilt.
create table if not exists intake.seen (
    key   uuid primary key,
    times bigint not null
);

-- When a position in the log moved last, by the schema that it is in: beside the log, in no digest, not rebuilt.
create table if not exists intake.moved (
    schema text primary key,
    at     timestamptz not null
);

-- How far each lane of each edge is durable here (docs/edge.md): beside the log, in no digest, not rebuilt.
create table if not exists intake.lane (
    edge     text        not null,
    epoch    text        not null,
    name     text        not null,
    number   bigint      not null,
    heard_at timestamptz not null,
    run      text        not null default '',
    primary key (edge, epoch, name)
);
alter table intake.lane add column if not exists run text not null default '';  -- who wrote the last entry: columns that came later

-- Up to which position what a process decided is in the log (hub/workflows/decider.py): beside the log, in no digest, not rebuilt.
create table if not exists intake.decided (
    process  text primary key,
    position bigint not null
);

-- What is kept of people's tokens (hub/security/tokens.py): beside the log, in no digest, not rebuilt. Only the owner may write it, but for `seen_at`,
-- and only hub_people read it; a copy of the log alone has nobody's token, and `hub people token` makes new ones.
create schema if not exists security;
create table if not exists security.token (
    person  text primary key,
    sha256  bytea       not null,
    made_at timestamptz not null,
    seen_at timestamptz
);

-- What the hub's schema is: an older one is migrated, a newer one refused.
create table if not exists intake.schema_version (version int not null);
