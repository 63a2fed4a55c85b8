"""A rate limit that connections share: no span has more requests than the source accepts, wherever it begins."""

from __future__ import annotations

import bisect
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_sdk import TransientError, _rate_leases
from penstock_sdk._rate_leases import RequestLease
from penstock_sdk.http import Client, SharedRateLimiter
from penstock_sdk.manifest import Manifest, RateRule, lease_tokens, manifest_problems, rate_rules, refilled
from penstock_sdk.manifest.rate_budget import MOST_RESERVED_SECONDS, NETWORK_SECONDS

MANIFEST: dict[str, Any] = {
    "name": "orders", "method": "rest", "version": "1.0.0", "title": "Orders", "taxonomy": {"category": "api"},
    "capabilities": {"modes": ["full"]}, "authentication": {"methods": [{"type": "none"}]}, "runners": ["process"],
    "configSchema": {"type": "object", "properties": {"baseUrl": {"type": "string"}}},
    "compliance": {"dataClassification": "internal", "pii": "none"},
}  # fmt: skip
RULES = st.lists(
    st.builds(RateRule, st.just("api.test"), st.just(443), st.integers(1, 200), st.integers(1, 60)), min_size=1, max_size=2, unique=True
)  # fmt: skip
CALLS = st.lists(
    st.tuples(st.floats(0, 3), st.integers(1, 50), st.floats(0, 1), st.floats(0, NETWORK_SECONDS)), min_size=1, max_size=150
)  # fmt: skip


@settings(max_examples=300)
@given(rules=RULES, calls=CALLS)
def test_no_span_has_more_requests_than_the_limit(
    rules: list[RateRule], calls: list[tuple[float, int, float, float]]
) -> None:
    """Each caller uses its whole lease, at any time at which it is valid."""
    now, sent = 0.0, list[float]()
    budgets = {rule: float(rule.burst) for rule in rules}
    for pause, wanted, at, network in calls:
        now += pause
        lease = lease_tokens({rule: refilled(rule, tokens, pause) for rule, tokens in budgets.items()}, wanted)
        budgets = dict(lease.tokens)
        assert lease.granted <= wanted
        sent += [now + lease.wait_seconds + at * lease.valid_seconds + network] * lease.granted
    sent.sort()
    for rule in rules:
        for number, moment in enumerate(sent):
            assert bisect.bisect_left(sent, moment + rule.seconds) - number <= rule.requests


@given(rules=RULES, wanted=st.integers(1, 1000), tokens=st.floats(-100, 0))
def test_a_lease_is_given_soon_or_not_promised(rules: list[RateRule], wanted: int, tokens: float) -> None:
    lease = lease_tokens(dict.fromkeys(rules, tokens), wanted)
    assert (
        lease.wait_seconds <= MOST_RESERVED_SECONDS if lease.granted else lease.tokens == dict.fromkeys(rules, tokens)
    )
    if not lease.granted:
        later = {rule: refilled(rule, tokens, lease.wait_seconds) for rule in rules}
        assert lease_tokens(later, wanted).granted >= 1


@pytest.mark.parametrize(
    ("requests", "seconds", "share"), [(600, 60, 0.89), (5000, 3600, 0.9), (100, 1, 0.7), (1, 60, 0.9)]
)
def test_most_of_the_limit_can_be_used(requests: int, seconds: int, share: float) -> None:
    rule = RateRule("api.test", 443, requests, seconds)
    assert share < rule.rate * seconds / requests < 1


def test_the_limits_of_a_connection_have_the_host_of_its_config() -> None:
    limits: list[Any] = [
        {"host": "{{config.baseUrl}}", "requests": 10},
        {"host": "api.test", "requests": 100, "seconds": 60, "shared": "tenant"},
        {"host": "{{config.missing}}", "requests": 1},
    ]
    manifest = Manifest.model_validate({**MANIFEST, "rateLimits": limits})
    assert rate_rules(manifest, {"baseUrl": "http://Source.test:8080/v1"}) == [
        RateRule("source.test", 8080, 10, 1),
        RateRule("api.test", 443, 100, 60, per_tenant=True),
    ]


@pytest.mark.parametrize("field", ["requests", "seconds"])
def test_a_rate_limit_of_zero_is_refused_by_its_field(field: str) -> None:
    limit: dict[str, Any] = {"host": "api.test", "requests": 1, "seconds": 1, field: 0}
    (problem,) = manifest_problems({**MANIFEST, "rateLimits": [limit]})
    assert problem.startswith(f"rateLimits[0].{field}: Invalid value: 0")


# -- the client


class Platform:
    """Leases of a test, and a clock that moves when the client waits."""

    def __init__(self, *leases: RequestLease | None) -> None:
        self.leases = list(leases)
        self.asked: list[int] = []
        self.waits: list[float] = []
        self.now = 0.0

    def lease(self, host: str, port: int, requests: int) -> RequestLease | None:
        assert (host, port) == ("api.test", 443)
        self.asked.append(requests)
        return self.leases.pop(0) if self.leases else RequestLease(requests, 0, 60)

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def limiter(self) -> SharedRateLimiter:
        return SharedRateLimiter("api.test", 443, self.lease, longest_wait=20, wait=self.wait, clock=lambda: self.now)


def test_requests_are_leased_in_bulk() -> None:
    platform = Platform()
    limiter = platform.limiter()
    for _ in range(1000):
        limiter.acquire()
    assert platform.asked == [2, 4, 8, 16, 32, 64, 128, 256, 512]


def test_a_lease_that_was_not_used_makes_the_next_one_smaller() -> None:
    platform = Platform(RequestLease(10, 0, 5))
    limiter = platform.limiter()
    for _ in range(4):
        limiter.acquire()
    platform.now = 6
    limiter.acquire()
    assert platform.asked == [2, 4]  # four of the ten were used


def test_a_lease_is_waited_for() -> None:
    platform = Platform(RequestLease(0, 7, 1), RequestLease(1, 3, 1))
    platform.limiter().acquire()
    assert platform.waits == [7, 3]


def test_a_longer_wait_ends_the_attempt() -> None:
    platform = Platform(RequestLease(0, 15, 1), RequestLease(0, 15, 1))
    with pytest.raises(TransientError, match=r"rate limit of api\.test is used up by this and other") as caught:
        platform.limiter().acquire()
    assert (platform.waits, caught.value.retry_after) == ([15], 15)


def test_a_host_without_a_limit_is_asked_for_once() -> None:
    platform = Platform(None)
    limiter = platform.limiter()
    for _ in range(3):
        limiter.acquire()
    assert platform.asked == [2]


def test_a_lease_that_arrives_too_late_gives_one_request() -> None:
    platform = Platform()

    def slow(host: str, port: int, requests: int) -> RequestLease | None:
        platform.now += 9
        return platform.lease(host, port, requests) and RequestLease(8, 0, 1)

    limiter = SharedRateLimiter("api.test", 443, slow, wait=platform.wait, clock=lambda: platform.now)
    limiter.acquire()
    limiter.acquire()
    assert len(platform.asked) == 2


def test_a_client_uses_the_platform_for_its_own_host_only() -> None:
    platform = Platform()
    _rate_leases.use_leases(platform.lease)
    try:
        client = Client("https://api.test", transport=httpx.MockTransport(lambda _: httpx.Response(200, json=[])))
        client.get("https://elsewhere.test/file")
        assert platform.asked == []
        client.get("items")
        assert platform.asked == [2]
    finally:
        _rate_leases.use_leases(None)
