-- Where each stream stood after each checkpoint, so that it can be put back there. A replica of the version before
-- writes no history, which loses rewind targets and nothing else.
CREATE TABLE penstock.stream_checkpoints (
    connection_uid text NOT NULL REFERENCES penstock.tenant_connections,
    stream         text NOT NULL,
    checkpoint     bigint NOT NULL,
    generation     integer NOT NULL,
    cursor         jsonb,
    state_version  integer NOT NULL,
    run_id         text NOT NULL,
    attempt        integer NOT NULL,
    done           boolean NOT NULL,
    committed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (connection_uid, stream, checkpoint)
);
CREATE INDEX stream_checkpoints_run ON penstock.stream_checkpoints (connection_uid, run_id);

-- Every change of a state that was not a checkpoint: who, when, why, before and after. Never pruned.
CREATE TABLE penstock.state_changes (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection_uid text NOT NULL REFERENCES penstock.tenant_connections,
    stream         text NOT NULL,
    action         text NOT NULL CHECK (action IN ('reset', 'rewind', 'import')),
    changed_by     text NOT NULL,
    reason         text NOT NULL DEFAULT '',
    before         jsonb NOT NULL,
    after          jsonb NOT NULL,
    fenced_runs    jsonb NOT NULL DEFAULT '[]',
    changed_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX state_changes_newest ON penstock.state_changes (connection_uid, id DESC);

-- A state that a person changed belongs to no run.
ALTER TABLE penstock.connector_run_state ALTER COLUMN run_id DROP NOT NULL, ALTER COLUMN attempt DROP NOT NULL;

ALTER TABLE penstock.tenant_connections
    ADD COLUMN handled_reset  text,
    ADD COLUMN handled_rewind text,
    ADD COLUMN state_answer   jsonb,
    ADD COLUMN purged_at      timestamptz;
CREATE INDEX tenant_connections_to_purge ON penstock.tenant_connections (deleted_at)
    WHERE deleted_at IS NOT NULL AND purged_at IS NULL AND spec -> 'bronze' ->> 'deletionPolicy' = 'Delete';

-- A committed object outlives the row of the run that made it: pruning runs must never forget one.
ALTER TABLE penstock.bronze_objects DROP CONSTRAINT bronze_objects_run_id_fkey;
CREATE INDEX bronze_objects_uncommitted ON penstock.bronze_objects (granted_at) WHERE committed_at IS NULL;

-- Where an attempt's log is kept once the attempt has ended; `log_note` says why there is none.
ALTER TABLE penstock.run_attempts
    ADD COLUMN log_key   text,
    ADD COLUMN log_bytes bigint,
    ADD COLUMN log_note  text;
