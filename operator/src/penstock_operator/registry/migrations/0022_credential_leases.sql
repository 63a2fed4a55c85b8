-- A credential that its use replaces, such as a refresh token, is used by one pod at a time. The key is the SHA-256 of the
-- namespace, the credential's name and the digest of the Secret's value, so that all connections with the same value share it.
CREATE TABLE penstock.credential_leases (
    key        bytea PRIMARY KEY,
    lease      text NOT NULL,
    run_id     text NOT NULL,
    attempt    integer NOT NULL,
    expires_at timestamptz NOT NULL
);
