-- An alert says which field it is about and which version it compares with, so that it is resolved when the schema goes
-- back, and who acknowledged it. A replica of the version before opens alerts without either: a person resolves those.
ALTER TABLE penstock.compat_alerts
    ADD COLUMN path            text NOT NULL DEFAULT '',
    ADD COLUMN baseline        integer,
    ADD COLUMN acknowledged_at timestamptz,
    ADD COLUMN acknowledged_by text,
    ADD COLUMN note            text NOT NULL DEFAULT '';
CREATE INDEX compat_alerts_acknowledged ON penstock.compat_alerts (connection_uid) WHERE acknowledged_at IS NOT NULL;

-- `stream` is what stays the same; the display name is what people call it now, and names are all that it was called.
ALTER TABLE penstock.stream_registry
    ADD COLUMN display_name  text,
    ADD COLUMN names         jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN pii_suggested jsonb NOT NULL DEFAULT '{}';

-- Streams that an attempt was not given, each with why: the run cannot succeed with one.
ALTER TABLE penstock.run_attempts
    ADD COLUMN refused     jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN incremental jsonb NOT NULL DEFAULT '[]';

-- Objects of records that did not fit count apart, and have sequence numbers of their own.
ALTER TABLE penstock.bronze_objects ADD COLUMN kind text NOT NULL DEFAULT 'data';
ALTER TABLE penstock.bronze_objects
    ADD CONSTRAINT bronze_objects_kind CHECK (kind IN ('data', 'rejected')) NOT VALID,
    DROP CONSTRAINT bronze_objects_run_id_attempt_stream_sequence_key,
    ADD CONSTRAINT bronze_objects_place UNIQUE (run_id, attempt, stream, kind, sequence);

ALTER TABLE penstock.connector_runs
    ADD COLUMN rejected bigint NOT NULL DEFAULT 0,
    ADD COLUMN estimate jsonb;

-- What the last reads of each stream brought, newest last: an empty read is judged by them.
CREATE TABLE penstock.stream_reads (
    connection_uid text NOT NULL REFERENCES penstock.tenant_connections,
    stream         text NOT NULL,
    mode           text NOT NULL,
    recent         bigint[] NOT NULL,
    run_id         text NOT NULL,
    read_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (connection_uid, stream)
);
