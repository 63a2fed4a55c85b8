-- The audit: who did what, on which object, when, from where, and with which result. Rows are only ever added. The function below
-- is the only way to delete some, and leaves a row that says how many it deleted.
CREATE TABLE penstock.audit_events (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    occurred_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor_kind   text NOT NULL CHECK (actor_kind IN ('person', 'pod', 'controller', 'command', 'anonymous')),
    actor        text NOT NULL,
    actor_uid    text,
    actor_groups text[] NOT NULL DEFAULT '{}',
    address      text,
    action       text NOT NULL,
    object_kind  text NOT NULL,
    namespace    text,
    -- The namespace that had the name then: a later one does not see the event.
    namespace_uid text,
    name         text,
    object_id    text,
    result       text NOT NULL CHECK (result IN ('allowed', 'refused', 'failed')),
    reason       text NOT NULL DEFAULT '',
    -- How many events the row stands for; more than 1 where refusals beyond a limit are counted only.
    events       integer NOT NULL DEFAULT 1 CHECK (events > 0)
);
CREATE INDEX audit_events_of_namespace ON penstock.audit_events (namespace, id);
CREATE INDEX audit_events_by_time ON penstock.audit_events (occurred_at);

CREATE FUNCTION penstock.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('penstock.audit_retention', true) = pg_current_xact_id()::text THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'penstock.audit_events is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON penstock.audit_events
    FOR EACH ROW EXECUTE FUNCTION penstock.refuse_audit_change();
CREATE TRIGGER audit_events_not_truncated BEFORE TRUNCATE ON penstock.audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION penstock.refuse_audit_change();

-- Deletes at most `most` of the events before `before`, and records how many. Events of the last day stay.
CREATE FUNCTION penstock.expire_audit_events(before timestamptz, most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE gone integer;
BEGIN
    before := least(before, now() - interval '1 day');
    PERFORM set_config('penstock.audit_retention', pg_current_xact_id()::text, true);
    DELETE FROM penstock.audit_events WHERE id IN (
        SELECT id FROM penstock.audit_events WHERE occurred_at < before ORDER BY occurred_at LIMIT most);
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM set_config('penstock.audit_retention', '', true);
    IF gone > 0 THEN
        INSERT INTO penstock.audit_events (actor_kind, actor, action, object_kind, result, reason, events)
        VALUES ('controller', 'controller', 'audit.expire', 'audit', 'allowed', 'older than ' || before::text, gone);
    END IF;
    RETURN gone;
END $$;
