-- What the store keeps. Unqualified names: the program sets the schema before it runs this.
-- Texts that are keys compare by bytes, whatever the database's own order is.

-- Facts about the store itself.
CREATE TABLE meta (
    key text PRIMARY KEY,
    value bytea NOT NULL
);

-- Numbers for servers, so that each run of one is told from all others.
CREATE SEQUENCE server_id;

-- Who has the store open.
CREATE TABLE server (
    id bigint PRIMARY KEY,
    version text NOT NULL,
    seen timestamptz NOT NULL
);

-- What the servers know together: one row. When any of them last said that it is there, how often nobody
-- had for a while, and up to which of these outages leases were given their time back.
CREATE TABLE fleet (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    seen timestamptz,
    outage bigint NOT NULL DEFAULT 0,
    recovered bigint NOT NULL DEFAULT 0
);

INSERT INTO fleet DEFAULT VALUES;

-- What claims choose by: few, written once, never changed.
CREATE TABLE kind (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    api text COLLATE "C" NOT NULL,
    method text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    UNIQUE (api, method, queue)
);

-- What lists choose by: one for each parent of each API, written once, never changed.
CREATE TABLE scope (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    api text COLLATE "C" NOT NULL,
    parent text COLLATE "C" NOT NULL,
    UNIQUE (api, parent)
);

-- One row per operation. The columns are what the indexes need; the rest is in the record.
CREATE TABLE operation (
    name text COLLATE "C" PRIMARY KEY,
    uid uuid NOT NULL,
    kind integer NOT NULL,
    scope integer NOT NULL,
    create_us bigint NOT NULL,
    revision bigint NOT NULL,
    state smallint NOT NULL,
    hidden boolean NOT NULL,
    claimable_us bigint,
    due_us bigint,
    -- The operation that this one is part of, and whether it would follow that one's cancel.
    parent_name text COLLATE "C",
    follows boolean NOT NULL,
    cancelled boolean NOT NULL,
    -- Of the worker and the claim id of the lease in force.
    claim_hash bigint,
    request_id text COLLATE "C",
    history_rows integer NOT NULL,
    -- CRC-32 over all columns that are read back.
    check_sum integer NOT NULL,
    record bytea NOT NULL,
    request_type text NOT NULL,
    request bytea NOT NULL,
    -- The newest events; older ones move to the table history.
    history bytea NOT NULL
) WITH (
    fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 1
);

CREATE INDEX operation_listed ON operation (scope, create_us, uid) WHERE NOT hidden;
CREATE INDEX operation_listed_open ON operation (scope, create_us, uid)
    WHERE NOT hidden AND state < 4;
CREATE INDEX operation_claimable ON operation (kind, claimable_us, create_us, uid)
    WHERE claimable_us IS NOT NULL;
CREATE INDEX operation_due ON operation (due_us, uid) WHERE due_us IS NOT NULL;
CREATE INDEX operation_child ON operation (parent_name, create_us, uid)
    WHERE parent_name IS NOT NULL;
CREATE INDEX operation_claimed ON operation (claim_hash) WHERE claim_hash IS NOT NULL;
CREATE INDEX operation_follows ON operation (parent_name) WHERE follows;

-- Older events of operations with a long history, some commits to a row.
CREATE TABLE history (
    uid uuid NOT NULL,
    first_revision bigint NOT NULL,
    last_revision bigint NOT NULL,
    check_sum integer NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (uid, first_revision)
);

-- Which operation was started under which idempotency key.
CREATE TABLE request_id (
    scope integer NOT NULL,
    value text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (scope, value)
);

-- How many operations of a kind are in a state: the sum over all slots. A writer uses slots that others
-- hardly use, so that nobody waits for a number.
CREATE TABLE tally (
    slot smallint NOT NULL,
    kind integer NOT NULL,
    state smallint NOT NULL,
    operations bigint NOT NULL,
    PRIMARY KEY (slot, kind, state)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- One row per commit: proves that it was made, and tells the other servers what it changed. Kept for a
-- minute or so.
CREATE TABLE change (
    server bigint NOT NULL,
    batch bigint NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    names text[] NOT NULL,
    revisions bigint[] NOT NULL,
    kinds integer[] NOT NULL,
    claimable_us bigint[] NOT NULL,
    PRIMARY KEY (server, batch)
) WITH (autovacuum_vacuum_scale_factor = 0.1);

CREATE INDEX change_xid ON change (xid);
