"""The arithmetic of a rate limit that several connections share: how many requests may be sent now, and when the next. Pure.

A budget is a bucket of tokens, one for each request. Its size and its rate leave room for the time between a lease and the
arrival of the request, so that no span of the source's limit has more requests than the limit allows, wherever it begins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from penstock_sdk.json_types import JsonObject
from penstock_sdk.manifest.egress_rules import config_values, fill_in, host_and_port
from penstock_sdk.manifest.model import Manifest, RateLimit

BURST_SHARE = 0.05
"""The part of a limit that may be sent at once. The rest is spread over the span."""
LEASE_SHARE, SHORTEST_LEASE = 0.05, 0.2
"""How long a lease is valid: a part of the span, and at least so many seconds."""
NETWORK_SECONDS = 0.1
"""By how much two requests may differ in their time to the source."""
MOST_RESERVED_SECONDS = 10.0
"""How far ahead requests may be leased. A lease beyond that has to be asked for again, so that no caller takes hours."""
MARGIN = 0.999
"""The rate stays below the limit by this factor, so that rounding never allows one request more."""


@dataclass(frozen=True, slots=True)
class RateRule:
    """A rate limit of one connection, with the config's values filled in."""

    host: str
    port: int
    requests: int
    seconds: int
    per_tenant: bool = False

    @property
    def lease_seconds(self) -> float:
        """How long a lease is valid."""
        return max(LEASE_SHARE * self.seconds, SHORTEST_LEASE)

    @property
    def burst(self) -> int:
        """The size of the bucket."""
        return max(1, int(BURST_SHARE * self.requests))

    @property
    def rate(self) -> float:
        """Tokens a second: with a full bucket at its begin, no span has `requests` + 1 arrivals."""
        return (self.requests + 1 - self.burst) / (self.seconds + self.lease_seconds + NETWORK_SECONDS) * MARGIN


@dataclass(frozen=True, slots=True)
class TokenLease:
    """The answer to a request for tokens: `granted` requests may be sent after `wait_seconds`, within `valid_seconds` from then.

    With 0, ask again after `wait_seconds`. `tokens` is what each budget has left; below 0, tokens of the future are leased.
    """

    granted: int
    wait_seconds: float
    valid_seconds: float
    tokens: Mapping[RateRule, float]


def lease_tokens(budgets: Mapping[RateRule, float], requested: int) -> TokenLease:
    """Return the lease of up to `requested` tokens from the budgets of all limits that a request counts against.

    `budgets` are the tokens that each has now; see `refilled`.
    """
    valid = min(rule.lease_seconds for rule in budgets)
    granted = min(requested, *(_most(rule, tokens) for rule, tokens in budgets.items()))
    wait = _wait(budgets, granted)
    if wait > MOST_RESERVED_SECONDS:
        granted, wait = 1, _wait(budgets, 1)
    if wait > MOST_RESERVED_SECONDS:  # its holder may not wait, and the lease would be lost
        return TokenLease(0, wait - MOST_RESERVED_SECONDS / 2, valid, budgets)
    return TokenLease(granted, wait, valid, {rule: tokens - granted for rule, tokens in budgets.items()})


def refilled(rule: RateRule, tokens: float, elapsed: float) -> float:
    """Return the tokens of a budget that had `tokens` before `elapsed` seconds."""
    return min(float(rule.burst), tokens + max(elapsed, 0.0) * rule.rate)


def _most(rule: RateRule, tokens: float) -> int:
    """Return how many requests one caller gets: what is there, otherwise what is earned while a lease is valid."""
    return math.floor(tokens) if tokens >= 1 else max(1, min(rule.burst, math.floor(rule.rate * rule.lease_seconds)))


def _wait(budgets: Mapping[RateRule, float], granted: int) -> float:
    return max(0.0, *((granted - tokens) / rule.rate for rule, tokens in budgets.items()))


def rate_rules(manifest: Manifest, config: JsonObject) -> list[RateRule]:
    """Return the rate limits of a connection; one whose host needs a value that the config lacks is left out."""
    values = config_values(manifest, config)
    rules = (_rule(limit, values) for limit in manifest.rate_limits or [])
    return [rule for rule in rules if rule is not None]


def _rule(limit: RateLimit, values: JsonObject) -> RateRule | None:
    filled = fill_in(limit.host.strip(), values)
    place = host_and_port(filled) if filled is not None else None
    if place is None:
        return None
    return RateRule(place[0], place[1], limit.requests, limit.seconds, limit.shared == "tenant")
