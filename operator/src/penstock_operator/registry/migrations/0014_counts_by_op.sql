-- Records are counted by operation as far as the registry: `deletes` is how many of `records` (for an object of rejected
-- records, of those) say that a record is gone. NULL where a pod with an older SDK committed the object. A replica of the
-- version before leaves it NULL.
ALTER TABLE penstock.bronze_objects ADD COLUMN deletes bigint;
ALTER TABLE penstock.bronze_objects
    ADD CONSTRAINT bronze_objects_deletes CHECK (deletes IS NULL OR deletes BETWEEN 0 AND records) NOT VALID;
ALTER TABLE penstock.connector_runs ADD COLUMN deletes bigint NOT NULL DEFAULT 0;
ALTER TABLE penstock.run_streams ADD COLUMN deletes bigint NOT NULL DEFAULT 0;
