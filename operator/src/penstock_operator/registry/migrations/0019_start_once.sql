-- An attempt belongs to one process: the one that started it with a key of its own. The run token is computed from that key and
-- from `token_salt`, so that a repeated start gets the same token, which the registry does not have.
ALTER TABLE penstock.run_attempts
    ADD COLUMN start_key_sha256 bytea,
    ADD COLUMN token_salt bytea;
