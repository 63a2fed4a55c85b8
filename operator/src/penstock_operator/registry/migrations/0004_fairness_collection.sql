-- What a run counts against: its tenant, and the host that its connector talks to. A replica of the version before leaves
-- both empty; the next claim fills the tenant in, and a run without a host counts against none. `waits` says why a run
-- that is due has not begun.
ALTER TABLE penstock.connector_runs
    ADD COLUMN tenant      text,
    ADD COLUMN source_host text,
    ADD COLUMN waits       text NOT NULL DEFAULT '';
UPDATE penstock.connector_runs r SET tenant = c.namespace FROM penstock.tenant_connections c
    WHERE c.uid = r.connection_uid AND r.phase IN ('pending', 'running');
CREATE INDEX connector_runs_line ON penstock.connector_runs (tenant, next_attempt_at, id) INCLUDE (source_host)
    WHERE phase = 'pending';
CREATE INDEX connector_runs_running ON penstock.connector_runs (tenant, source_host) WHERE phase = 'running';
CREATE INDEX connector_runs_no_tenant ON penstock.connector_runs (id)
    WHERE tenant IS NULL AND phase IN ('pending', 'running');

-- Objects of one generation, found without looking at the others.
CREATE INDEX bronze_objects_generation ON penstock.bronze_objects (connection_uid, stream, generation, run_id)
    WHERE committed_at IS NOT NULL;
DROP INDEX penstock.bronze_objects_committed;

-- A purge deletes what was there when it began, and nothing later: the same connection may be applied again meanwhile.
ALTER TABLE penstock.tenant_connections ADD COLUMN purge_started_at timestamptz;
CREATE INDEX tenant_connections_purging ON penstock.tenant_connections (purge_started_at)
    WHERE purge_started_at IS NOT NULL;

-- A run whose commit manifest is still to be written is not pruned, a Job that is to be retired is not deleted.
CREATE INDEX outbox_runs ON penstock.outbox ((payload ->> 'run')) WHERE kind IN ('commit', 'retire');

-- Streams that were read anew: only they have older generations.
CREATE INDEX connector_run_state_anew ON penstock.connector_run_state (connection_uid, stream) WHERE generation > 1;

-- How much each tenant has had lately, fading within minutes: who had least is next.
CREATE TABLE penstock.tenant_turns (
    tenant text PRIMARY KEY,
    served double precision NOT NULL,
    at     timestamptz NOT NULL
);
