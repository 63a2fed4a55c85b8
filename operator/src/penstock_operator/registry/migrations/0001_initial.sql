CREATE TABLE penstock.connector_definitions (
    uid         text PRIMARY KEY,
    name        text NOT NULL,
    connector   text NOT NULL,
    method      text NOT NULL,
    version     text NOT NULL,
    image       text NOT NULL,
    stage       text NOT NULL CHECK (stage IN ('preview', 'certified', 'deprecated', 'withdrawn')),
    manifest    jsonb NOT NULL,
    generation  bigint NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at  timestamptz
);
CREATE UNIQUE INDEX connector_definitions_live ON penstock.connector_definitions (connector, method, version)
    WHERE deleted_at IS NULL;

CREATE TABLE penstock.tenant_connections (
    uid               text PRIMARY KEY,
    namespace         text NOT NULL,
    name              text NOT NULL,
    generation        bigint NOT NULL,
    spec              jsonb NOT NULL,
    definition_uid    text REFERENCES penstock.connector_definitions,
    ready             boolean NOT NULL,
    suspended         boolean NOT NULL,
    schedule          text,
    time_zone         text NOT NULL,
    next_run_at       timestamptz,
    last_scheduled_at timestamptz,
    last_success_at   timestamptz,
    handled_request   text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    deleted_at        timestamptz
);
CREATE UNIQUE INDEX tenant_connections_live ON penstock.tenant_connections (namespace, name) WHERE deleted_at IS NULL;
CREATE INDEX tenant_connections_due ON penstock.tenant_connections (next_run_at)
    WHERE ready AND NOT suspended AND deleted_at IS NULL AND next_run_at IS NOT NULL;

CREATE TABLE penstock.connector_runs (
    id               text PRIMARY KEY,
    connection_uid   text NOT NULL REFERENCES penstock.tenant_connections,
    definition_uid   text NOT NULL REFERENCES penstock.connector_definitions,
    spec             jsonb NOT NULL,
    trigger          text NOT NULL CHECK (trigger IN ('schedule', 'request')),
    scheduled_at     timestamptz,
    token            text,
    phase            text NOT NULL DEFAULT 'pending'
                     CHECK (phase IN ('pending', 'running', 'succeeded', 'failed', 'cancelled')),
    attempt          integer NOT NULL DEFAULT 0,
    streak           integer NOT NULL DEFAULT 0,
    next_attempt_at  timestamptz NOT NULL DEFAULT now(),
    cancel_requested boolean NOT NULL DEFAULT false,
    created_at       timestamptz NOT NULL DEFAULT now(),
    started_at       timestamptz,
    finished_at      timestamptz,
    records          bigint NOT NULL DEFAULT 0,
    bytes            bigint NOT NULL DEFAULT 0,
    objects          integer NOT NULL DEFAULT 0,
    reason           text,
    error_class      text,
    message          text NOT NULL DEFAULT '',
    operator_message text NOT NULL DEFAULT '',
    metrics          jsonb NOT NULL DEFAULT '{}',
    UNIQUE (connection_uid, scheduled_at),
    UNIQUE (connection_uid, token)
);
CREATE INDEX connector_runs_pending ON penstock.connector_runs (next_attempt_at) WHERE phase = 'pending';
CREATE INDEX connector_runs_active ON penstock.connector_runs (connection_uid) WHERE phase IN ('pending', 'running');
CREATE INDEX connector_runs_newest ON penstock.connector_runs (connection_uid, id DESC);

CREATE TABLE penstock.run_attempts (
    run_id           text NOT NULL REFERENCES penstock.connector_runs ON DELETE CASCADE,
    attempt          integer NOT NULL,
    phase            text NOT NULL DEFAULT 'launching'
                     CHECK (phase IN ('launching', 'running', 'succeeded', 'failed', 'cancelled', 'interrupted', 'lost')),
    job_name         text NOT NULL UNIQUE,
    job_uid          text,
    pod_uid          text,
    token_sha256     bytea UNIQUE,
    streams          jsonb NOT NULL DEFAULT '[]',
    launched_at      timestamptz NOT NULL DEFAULT now(),
    started_at       timestamptz,
    heartbeat_at     timestamptz,
    finished_at      timestamptz,
    exit_code        integer,
    reason           text,
    error_class      text,
    message          text NOT NULL DEFAULT '',
    operator_message text NOT NULL DEFAULT '',
    metrics          jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (run_id, attempt)
);
CREATE INDEX run_attempts_live ON penstock.run_attempts (launched_at) WHERE finished_at IS NULL;

CREATE TABLE penstock.connector_run_state (
    connection_uid text NOT NULL REFERENCES penstock.tenant_connections,
    stream         text NOT NULL,
    cursor         jsonb,
    state_version  integer NOT NULL,
    checkpoint     bigint NOT NULL,
    generation     integer NOT NULL DEFAULT 1,
    run_id         text NOT NULL,
    attempt        integer NOT NULL,
    done           boolean NOT NULL,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (connection_uid, stream)
);

CREATE TABLE penstock.stream_registry (
    connection_uid text NOT NULL REFERENCES penstock.tenant_connections,
    stream         text NOT NULL,
    version        integer NOT NULL,
    fingerprint    text NOT NULL,
    schema         jsonb NOT NULL,
    primary_key    jsonb NOT NULL,
    cursor_field   text,
    modes          jsonb NOT NULL,
    pii            jsonb NOT NULL,
    first_seen_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (connection_uid, stream, version)
);

CREATE TABLE penstock.compat_alerts (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection_uid text NOT NULL REFERENCES penstock.tenant_connections,
    stream         text NOT NULL,
    kind           text NOT NULL,
    message        text NOT NULL,
    run_id         text NOT NULL,
    opened_at      timestamptz NOT NULL DEFAULT now(),
    resolved_at    timestamptz
);
CREATE UNIQUE INDEX compat_alerts_open ON penstock.compat_alerts (connection_uid, stream, kind, message)
    WHERE resolved_at IS NULL;

CREATE TABLE penstock.bronze_objects (
    key            text PRIMARY KEY,
    connection_uid text NOT NULL REFERENCES penstock.tenant_connections,
    stream         text NOT NULL,
    generation     integer NOT NULL,
    run_id         text NOT NULL REFERENCES penstock.connector_runs ON DELETE CASCADE,
    attempt        integer NOT NULL,
    sequence       integer NOT NULL,
    checkpoint     bigint,
    records        bigint,
    bytes          bigint,
    sha256         text,
    schema_version integer,
    granted_at     timestamptz NOT NULL DEFAULT now(),
    committed_at   timestamptz,
    UNIQUE (run_id, attempt, stream, sequence)
);
CREATE INDEX bronze_objects_committed ON penstock.bronze_objects (connection_uid, stream, run_id)
    WHERE committed_at IS NOT NULL;

CREATE TABLE penstock.outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('commit', 'status', 'retire')),
    payload      jsonb NOT NULL,
    tries        integer NOT NULL DEFAULT 0,
    available_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_available ON penstock.outbox (available_at);

-- Tokens that a source rotates: kept by version, so that a lost reply never loses the only valid one.
CREATE TABLE penstock.credentials (
    connection_uid text NOT NULL REFERENCES penstock.tenant_connections,
    name           text NOT NULL,
    version        bigint NOT NULL,
    ciphertext     bytea NOT NULL,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (connection_uid, name)
);
