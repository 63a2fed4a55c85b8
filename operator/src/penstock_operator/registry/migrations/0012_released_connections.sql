-- When the connection was left to another installation, or to none: it is there, and this one does not work on it.
ALTER TABLE penstock.tenant_connections ADD COLUMN released_at timestamptz;
