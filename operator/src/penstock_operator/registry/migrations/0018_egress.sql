-- Connections of an attempt that the egress gateway denied, and the bytes that it let through.
CREATE TABLE penstock.egress_denials (
    run_id    text NOT NULL,
    attempt   integer NOT NULL,
    host      text NOT NULL,
    port      integer NOT NULL,
    reason    text NOT NULL,
    times     bigint NOT NULL DEFAULT 1,
    denied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, attempt, host, port),
    FOREIGN KEY (run_id, attempt) REFERENCES penstock.run_attempts ON DELETE CASCADE
);
ALTER TABLE penstock.run_attempts
    ADD COLUMN egress_sent     bigint NOT NULL DEFAULT 0,
    ADD COLUMN egress_received bigint NOT NULL DEFAULT 0;
