-- The key that a credential is encrypted with; NULL for a row in the earlier form. And the newest version of each credential: a
-- row of `credentials` with an older one was rolled back, and a row that is not there although `present` was removed.
ALTER TABLE penstock.credentials ADD COLUMN key_id text;
CREATE TABLE penstock.credential_versions (
    connection_uid text NOT NULL REFERENCES penstock.tenant_connections ON UPDATE CASCADE ON DELETE CASCADE,
    name           text NOT NULL,
    version        bigint NOT NULL,
    present        boolean NOT NULL DEFAULT true,
    PRIMARY KEY (connection_uid, name)
);
CREATE FUNCTION penstock.refuse_older_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.version < OLD.version THEN
        RAISE EXCEPTION 'the version of a credential never falls' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER credential_versions_grow BEFORE UPDATE ON penstock.credential_versions
    FOR EACH ROW EXECUTE FUNCTION penstock.refuse_older_version();
