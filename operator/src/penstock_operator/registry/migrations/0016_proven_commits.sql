-- A grant names the size and the SHA-256 of its object: `bytes` and `sha256` are set when the object is granted, not when it
-- is committed. How much an attempt was granted is counted, so that it can be bounded.
ALTER TABLE penstock.run_attempts
    ADD COLUMN granted_objects bigint NOT NULL DEFAULT 0,
    ADD COLUMN granted_bytes bigint NOT NULL DEFAULT 0;

-- The objects of an attempt that are granted and not committed yet.
CREATE INDEX bronze_objects_open ON penstock.bronze_objects (run_id, attempt) INCLUDE (bytes) WHERE committed_at IS NULL;
