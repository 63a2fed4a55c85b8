-- Why a connection cannot be used, as its Stalled condition says; NULL of one that can, and of one that a replica of the
-- version before has recorded.
ALTER TABLE penstock.tenant_connections ADD COLUMN stalled_message text;
