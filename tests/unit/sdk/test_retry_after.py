"""The headers by which a source asks to wait, in all their forms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_sdk.http import RateLimitStatus, rate_limit_status, retry_after

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@given(seconds=st.integers(0, 10**30))
def test_seconds_are_read_and_limited_to_a_day(seconds: int) -> None:
    assert retry_after(httpx.Headers({"Retry-After": f" {seconds} "}), NOW) == min(seconds, 86_400)


@given(seconds=st.integers(-(10**6), 10**6), skew=st.integers(-(10**6), 10**6), has_date=st.booleans())
def test_a_date_is_read_and_compared_with_the_clock_of_the_source(seconds: int, skew: int, has_date: bool) -> None:  # noqa: FBT001
    source_now = NOW + timedelta(seconds=skew if has_date else 0)
    headers = {"Retry-After": format_datetime(source_now + timedelta(seconds=seconds), usegmt=True)}
    dated = {**headers, "Date": format_datetime(source_now, usegmt=True)} if has_date else headers
    assert retry_after(httpx.Headers(dated), NOW) == min(max(seconds, 0), 86_400)


@pytest.mark.parametrize("text", ["Sunday, 01-Jan-26 12:00:30 GMT", "Thu Jan  1 12:00:30 2026"])
def test_the_two_older_forms_of_a_date_are_read(text: str) -> None:
    assert retry_after(httpx.Headers({"Retry-After": text}), NOW) == 30


@given(text=st.binary(max_size=60).filter(lambda value: not value.strip().isdigit()))
def test_any_other_text_is_none_or_a_valid_wait(text: bytes) -> None:
    found = retry_after(httpx.Headers([(b"Retry-After", text)]), NOW)
    assert found is None or 0 <= found <= 86_400


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "²", "Wed, 99 Oct 2015", "1e3", "0x10", "1 2"])
def test_a_wait_that_makes_no_sense_is_none(text: str) -> None:
    assert retry_after(httpx.Headers({b"Retry-After": text.encode()}), NOW) is None


EPOCH = int(NOW.timestamp())


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"RateLimit": '"default";r=50;t=30'}, RateLimitStatus(50, 30)),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "12", "RateLimit-Limit": "100"}, RateLimitStatus(0, 12, 100)),
        ({"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": str(EPOCH + 90)}, RateLimitStatus(3, 90)),
        ({"X-Rate-Limit-Remaining": "3", "X-Rate-Limit-Reset": str((EPOCH + 90) * 1000)}, RateLimitStatus(3, 90)),
        ({"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "2.5"}, RateLimitStatus(3, 2.5)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(EPOCH - 90)}, RateLimitStatus(0, 0)),
        ({"X-RateLimit-Remaining": "3"}, None),
        ({"X-RateLimit-Remaining": "many", "X-RateLimit-Reset": "1"}, None),
        ({"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "-1"}, None),
        ({}, None),
    ],
)
def test_a_rate_limit_is_read_from_the_usual_headers(headers: dict[str, str], expected: RateLimitStatus | None) -> None:
    assert rate_limit_status(httpx.Headers(headers), NOW) == expected
