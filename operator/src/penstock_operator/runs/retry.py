"""When a failed attempt is followed by another. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock_operator.resources.models import Retry, parse_duration

CAUTIOUS_LIMIT = 1
FINAL = ("ConfigError", "AuthenticationError", "SourceContractError", "LocalPersistenceError")


@dataclass(frozen=True)
class Failure:
    """What is known of a failed attempt.

    `progressed`: it committed something. `disrupted`: the platform took it away, so that it does not count.
    """

    error_class: str
    progressed: bool = False
    disrupted: bool = False
    retry_after: float | None = None


@dataclass(frozen=True)
class Again:
    """Try again: after `delay` seconds, with `streak` failures in a row behind it."""

    delay: float
    streak: int


def decide_retry(policy: dict[str, Any], streak: int, failure: Failure) -> Again | None:
    """Return when to try again, None to give up.

    Progress resets the streak; a disruption does not add to it; the source's Retry-After goes before the backoff.
    """
    if failure.disrupted:
        return Again(delay=1.0, streak=streak)
    if failure.error_class in FINAL:
        return None
    retry = Retry.model_validate(policy)
    behind = 1 if failure.progressed else streak + 1
    limit = retry.limit if failure.error_class == "TransientError" else min(retry.limit, CAUTIOUS_LIMIT)
    if behind > limit:
        return None
    backoff = parse_duration(retry.backoff.initial) * retry.backoff.factor ** (behind - 1)
    delay = min(backoff, parse_duration(retry.backoff.max))
    return Again(delay=delay if failure.retry_after is None else failure.retry_after, streak=behind)
