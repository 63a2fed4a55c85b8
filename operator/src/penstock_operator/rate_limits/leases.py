"""Leases of requests to a source: tokens of a budget that all connections with the same limit share.

Pods ask for several requests at a time. A lease locks the budgets' rows for the time of one short transaction; the arithmetic is
the SDK's (`penstock_sdk.manifest.lease_tokens`), which says why no span of the limit has too many requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_sdk.manifest import RateRule, TokenLease, lease_tokens, refilled

from penstock_operator.ids import Namespace
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_one

PLATFORM = ""
"""The tenant of a budget that all tenants share."""


@dataclass(frozen=True, slots=True)
class _Budget:
    tokens: float
    elapsed: float
    """Seconds since the last lease, by the clock of the database."""


async def lease_requests(
    db: DatabaseConnection, rules: Sequence[RateRule], namespace: Namespace, requested: int
) -> TokenLease:
    """Take up to `requested` tokens from the budgets of the rules, in the caller's transaction."""
    ordered = sorted(set(rules), key=lambda rule: (rule.requests, rule.seconds, rule.per_tenant))  # no deadlocks
    budgets = {rule: await _locked_tokens(db, rule, namespace) for rule in ordered}
    lease = lease_tokens(budgets, requested)
    for rule, tokens in lease.tokens.items():
        await _set_tokens(db, rule, namespace, tokens)
    return lease


async def _locked_tokens(db: DatabaseConnection, rule: RateRule, namespace: Namespace) -> float:
    """Lock a budget, and return its tokens now. A new one is full."""
    key = _key(rule, namespace)
    inserted = await fetch_one(
        db,
        _Budget,
        """
        INSERT INTO penstock.rate_limit_budgets (tenant, host, port, requests, seconds, tokens, leased_at)
        VALUES (%(tenant)s, %(host)s, %(port)s, %(requests)s, %(seconds)s, %(tokens)s, clock_timestamp())
        ON CONFLICT DO NOTHING RETURNING tokens, 0::float8 AS elapsed
        """,
        **key,
        tokens=rule.burst,
    )
    if inserted is not None:
        await _delete_unused(db)
        return inserted.tokens
    # The clock is read after the lock: a lease that waited for another one must not count its time twice.
    await fetch_one(
        db,
        _Budget,
        "SELECT tokens, 0::float8 AS elapsed FROM penstock.rate_limit_budgets WHERE tenant = %(tenant)s AND host = %(host)s"
        " AND port = %(port)s AND requests = %(requests)s AND seconds = %(seconds)s FOR UPDATE",
        **key,
    )
    budget = await fetch_one(
        db,
        _Budget,
        "SELECT tokens, extract(epoch FROM clock_timestamp() - leased_at)::float8 AS elapsed"
        " FROM penstock.rate_limit_budgets WHERE tenant = %(tenant)s AND host = %(host)s AND port = %(port)s"
        " AND requests = %(requests)s AND seconds = %(seconds)s",
        **key,
    )
    return float(rule.burst) if budget is None else refilled(rule, budget.tokens, budget.elapsed)


async def _set_tokens(db: DatabaseConnection, rule: RateRule, namespace: Namespace, tokens: float) -> None:
    await execute(
        db,
        "UPDATE penstock.rate_limit_budgets SET tokens = %(tokens)s, leased_at = clock_timestamp() WHERE tenant = %(tenant)s"
        " AND host = %(host)s AND port = %(port)s AND requests = %(requests)s AND seconds = %(seconds)s",
        **_key(rule, namespace),
        tokens=tokens,
    )


async def _delete_unused(db: DatabaseConnection) -> None:
    """Delete budgets that are full again: no span of a limit is longer than a day."""
    await execute(
        db,
        "DELETE FROM penstock.rate_limit_budgets b USING (SELECT ctid FROM penstock.rate_limit_budgets"
        " WHERE leased_at < now() - interval '2 days' LIMIT 100 FOR UPDATE SKIP LOCKED) old WHERE b.ctid = old.ctid",
    )


def _key(rule: RateRule, namespace: Namespace) -> dict[str, str | int]:
    tenant = namespace if rule.per_tenant else PLATFORM
    return {
        "tenant": tenant,
        "host": rule.host,
        "port": rule.port,
        "requests": rule.requests,
        "seconds": rule.seconds,
    }
