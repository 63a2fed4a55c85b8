-- Which namespace a connection is of: one that is deleted and made anew is another tenant's. And the generation that the
-- connection's streams begin with: one that follows another of its name writes below a prefix of its own. A replica of the
-- version before records neither: what it records begins with generation 1, and goes on with nobody's state.
ALTER TABLE penstock.tenant_connections
    ADD COLUMN namespace_uid    text,
    ADD COLUMN first_generation integer NOT NULL DEFAULT 1;
CREATE INDEX tenant_connections_named ON penstock.tenant_connections (namespace, name);

-- A connection that is applied again has another uid, and goes on with all that was recorded under the one before.
DO $$
DECLARE found record;
BEGIN
    FOR found IN
        SELECT conrelid::regclass AS owner, conname, a.attname FROM pg_constraint c
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'f' AND c.confrelid = 'penstock.tenant_connections'::regclass AND c.confupdtype <> 'c'
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I FOREIGN KEY (%I)'
            ' REFERENCES penstock.tenant_connections ON UPDATE CASCADE NOT VALID',
            found.owner, found.conname, found.conname, found.attname);
    END LOOP;
END $$;

-- The first generation that no connection of that name has written yet.
CREATE FUNCTION penstock.next_generation(text, text) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(greatest(
        c.first_generation,
        (SELECT max(s.generation) FROM penstock.connector_run_state s WHERE s.connection_uid = c.uid),
        (SELECT max(o.generation) FROM penstock.bronze_objects o
         WHERE o.connection_uid = c.uid AND o.committed_at IS NOT NULL))) + 1, 1)
    FROM penstock.tenant_connections c WHERE c.namespace = $1 AND c.name = $2
$$;
