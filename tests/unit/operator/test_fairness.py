"""The pure parts of fairness: which host a run counts against, what the settings allow, how fast Jobs are made."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.attempts.launch_rate import TokenBucket
from penstock_operator.resources.hosts import source_host
from penstock_operator.settings import NO_QUOTAS, Quotas, SettingsError, quotas


@pytest.mark.parametrize(
    ("hosts", "config", "found"),
    [
        (["{{config.host}}"], {"host": "DB.sales"}, "db.sales"),
        (["{{ config.host }}"], {"host": "db.sales."}, "db.sales"),
        (["login.example", "{{config.shop}}.example"], {"shop": "acme"}, "acme.example"),
        (["login.example", "{{config.host}}"], {}, "login.example"),
        (["api.example:443"], {}, "api.example"),
        (["{{config.url}}"], {"url": "https://user@api.example:8443/v2"}, "api.example"),
        (["{{config.url}}"], {"url": "http://[::1]:8080/"}, "::1"),
        (["{{config.source.host}}"], {"source": {"host": "deep"}}, "deep"),
        (["{{config.host}}"], {"host": ["no", "text"]}, None),
        (["{{config.host}}"], {"host": ""}, None),
        (["*.example"], {}, "*.example"),
        ([], {"host": "x"}, None),
    ],
)
def test_the_source_is_the_host_that_the_config_names(hosts: list[str], config: dict[str, Any], found: str) -> None:
    assert source_host(hosts, config) == found


@given(
    st.lists(st.text(max_size=40), max_size=3),
    st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.none() | st.integers(), max_size=4),
)
def test_no_manifest_and_no_config_is_too_strange(hosts: list[str], config: dict[str, Any]) -> None:
    found = source_host([*hosts, "{{config.host}}"], config)
    assert found is None or 0 < len(found) <= 253
    assert source_host([], config) is None


def test_quotas_come_from_the_environment_and_default_to_none() -> None:
    assert quotas({}) == NO_QUOTAS
    found = quotas(
        {
            "PENSTOCK_MAX_RUNS_PER_TENANT": "10",
            "PENSTOCK_TENANT_MAX_RUNS": "team-a=50, team-b=5",
            "PENSTOCK_MAX_RUNS_PER_HOST": "4",
            "PENSTOCK_LAUNCH_RATE": "2.5",
        }
    )
    assert found == Quotas(10, {"team-a": 50, "team-b": 5}, 4, 2.5, 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PENSTOCK_MAX_RUNS_PER_TENANT", "ten"),
        ("PENSTOCK_MAX_RUNS_PER_HOST", "-1"),
        ("PENSTOCK_LAUNCH_RATE", "fast"),
        ("PENSTOCK_LAUNCH_RATE", "inf"),
        ("PENSTOCK_LAUNCH_BURST", "1.5"),
        ("PENSTOCK_TENANT_MAX_RUNS", "team-a"),
        ("PENSTOCK_TENANT_MAX_RUNS", "team-a=0"),
        ("PENSTOCK_TENANT_MAX_RUNS", "Team=5"),
        ("PENSTOCK_TENANT_MAX_RUNS", "team-a=5,team-a=6"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_what_it_must_be(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"{name}.*must be"):
        quotas({name: value})


def test_jobs_are_made_at_their_rate_with_a_burst_after_a_pause() -> None:
    bucket, made, now = TokenBucket(2.0, 10), 0, 100.0
    for step in range(100):
        count = bucket.room(now + step * 0.1)
        bucket.take(count)
        made += count
    assert 20 <= made <= 22, "ten seconds at two a second, and the one second's worth of the start"
    assert bucket.room(now + 1000) == 10
    assert TokenBucket(None, 1).room(0.0) > 1000


@given(st.lists(st.floats(0, 1000), min_size=2, max_size=50), st.floats(0.1, 50), st.integers(1, 100))
def test_no_clock_makes_more_than_its_time_allows(moments: list[float], rate: float, burst: int) -> None:
    bucket, made = TokenBucket(rate, burst), 0
    for moment in moments:
        count = bucket.room(moment)
        bucket.take(count)
        made += count
    forward = sum(max(0.0, after - before) for before, after in pairwise(moments))
    assert made <= max(rate, 1) + forward * rate + 1e-6
