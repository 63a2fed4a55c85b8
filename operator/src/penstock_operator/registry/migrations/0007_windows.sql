-- Where a run stands that reads a window of its source again. It is the run's own, beside the streams' state, which such a
-- run never touches. A replica of the version before knows no windows: what it lets such a run read it commits nowhere,
-- as the numbers of its checkpoints begin where no stream's are.
CREATE TABLE penstock.window_states (
    run_id        text NOT NULL REFERENCES penstock.connector_runs ON DELETE CASCADE,
    stream        text NOT NULL,
    cursor        jsonb,
    state_version integer NOT NULL,
    checkpoint    bigint NOT NULL,
    attempt       integer NOT NULL,
    done          boolean NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, stream)
);
