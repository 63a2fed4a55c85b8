-- Why the run's pod has not started, as Kubernetes tells it. `waits` has the words, this the condition's reason. A replica
-- of the version before leaves it alone.
ALTER TABLE penstock.connector_runs ADD COLUMN waits_reason text;

-- The messages about one connection are acted on together.
CREATE INDEX outbox_statuses ON penstock.outbox ((payload ->> 'connection')) WHERE kind = 'status';

-- A run that looks whether what made the one before fail was mended outside of the resource, such as its Secret.
ALTER TABLE penstock.connector_runs
    DROP CONSTRAINT connector_runs_trigger_check,
    ADD CONSTRAINT connector_runs_trigger_check
        CHECK (trigger IN ('schedule', 'request', 'backfill', 'upstream', 'recheck')) NOT VALID;
CREATE INDEX tenant_connections_failing ON penstock.tenant_connections (uid) WHERE failures > 0 AND deleted_at IS NULL;

-- Who this registry is, among several installations in one cluster: the owner that resources and Jobs name.
CREATE TABLE penstock.installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id       text NOT NULL
);
INSERT INTO penstock.installation (id) VALUES (gen_random_uuid()::text);
