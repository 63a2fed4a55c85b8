-- How each stream of a run went: read to its end, failed with its own error, or not read. One row for a stream and a run;
-- the newest attempt that says more than "not read" is kept.
CREATE TABLE penstock.run_streams (
    run_id           text NOT NULL REFERENCES penstock.connector_runs ON DELETE CASCADE,
    stream           text NOT NULL,
    attempt          integer NOT NULL,
    outcome          text NOT NULL CHECK (outcome IN ('succeeded', 'failed', 'not_read')),
    error_class      text,
    message          text NOT NULL DEFAULT '',
    operator_message text NOT NULL DEFAULT '',
    records          bigint NOT NULL DEFAULT 0,
    rejected         bigint NOT NULL DEFAULT 0,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, stream)
);
