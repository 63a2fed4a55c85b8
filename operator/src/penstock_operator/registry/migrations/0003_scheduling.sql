-- What a connection's schedule needs to know beside its next time: by how much its ticks are put off, which connections
-- it follows and which of their successes it has followed already, and how often it has failed in a row. A replica of
-- the version before leaves all of it alone: it puts nothing off, wakes nobody and pauses nothing.
ALTER TABLE penstock.tenant_connections
    ADD COLUMN jitter_seconds   integer NOT NULL DEFAULT 0,
    ADD COLUMN upstreams        text[] NOT NULL DEFAULT '{}',
    ADD COLUMN upstreams_seen   jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN upstream_reason  text,
    ADD COLUMN upstream_message text NOT NULL DEFAULT '',
    ADD COLUMN last_success_run text,
    ADD COLUMN failures         integer NOT NULL DEFAULT 0,
    ADD COLUMN paused_until     timestamptz;
CREATE INDEX tenant_connections_following ON penstock.tenant_connections (namespace)
    WHERE upstreams <> '{}' AND deleted_at IS NULL;

-- `memory` is what the next attempt gets in place of the spec's limit. NOT VALID: the check before was narrower.
ALTER TABLE penstock.connector_runs
    ADD COLUMN cancel_requested_at timestamptz,
    ADD COLUMN disruptions         integer NOT NULL DEFAULT 0,
    ADD COLUMN memory              text,
    DROP CONSTRAINT connector_runs_trigger_check,
    ADD CONSTRAINT connector_runs_trigger_check
        CHECK (trigger IN ('schedule', 'request', 'backfill', 'upstream')) NOT VALID;

-- A connection's runs share its state: one that has begun ends before another begins, whoever claims them.
CREATE UNIQUE INDEX connector_runs_begun ON penstock.connector_runs (connection_uid)
    WHERE phase IN ('pending', 'running') AND attempt > 0;
