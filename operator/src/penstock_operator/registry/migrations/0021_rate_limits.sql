-- Budgets of rate limits that connections share. `tokens` is the number of requests that could be sent at `leased_at`; below 0,
-- requests of the future are promised. `tenant` is empty for a limit that all tenants share.
CREATE TABLE penstock.rate_limit_budgets (
    tenant    text NOT NULL,
    host      text NOT NULL,
    port      integer NOT NULL,
    requests  integer NOT NULL,
    seconds   integer NOT NULL,
    tokens    float8 NOT NULL,
    leased_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, host, port, requests, seconds)
);
CREATE INDEX rate_limit_budgets_leased_at ON penstock.rate_limit_budgets (leased_at);
