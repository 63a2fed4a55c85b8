"""When a failed attempt is followed by another. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock_operator.resources.models import ConnectionSpec, ResourceLimits, Retry
from penstock_operator.runs.oom_policy import raised_memory

CAUTIOUS_LIMIT = 1
FINAL = ("ConfigError", "AuthenticationError", "SourceContractError", "LocalPersistenceError")
SHORTEST_DELAY, LONGEST_DELAY = 1.0, 24 * 3600.0
FREE_DISRUPTIONS, LONGEST_DISRUPTION_DELAY = 10, 300.0
LONGEST_QUOTA_DELAY = 60.0


@dataclass(frozen=True)
class AttemptFailure:
    """What is known of a failed attempt.

    `progressed`: it committed something. `disrupted`: the platform took it away, so that it does not count.
    `out_of_memory`: it used more than it was given. `retry_after`: the source's own wish, in seconds. `no_room`: the
    namespace's quota had none for it. `final`: another attempt would not find out what is wrong.
    """

    error_class: str
    progressed: bool = False
    disrupted: bool = False
    retry_after: float | None = None
    out_of_memory: bool = False
    no_room: bool = False
    final: bool = False


@dataclass(frozen=True)
class RetryHistory:
    """What lies behind a run: failures in a row, disruptions in a row, and the memory of its attempts."""

    streak: int = 0
    disruptions: int = 0
    memory: str = ResourceLimits().memory


@dataclass(frozen=True)
class RetryPlan:
    """Try again: after `delay` seconds, with `streak` failures and `disruptions` in a row behind it.

    `memory` is what the next attempt gets, where it gets more than the one before.
    """

    delay: float
    streak: int
    disruptions: int = 0
    memory: str | None = None


def decide_retry(spec: ConnectionSpec, history: RetryHistory, failure: AttemptFailure) -> RetryPlan | None:
    """Return when to try again, None to give up.

    Progress resets the streak; the source's Retry-After goes before the backoff. A disruption does not add to the
    streak, unless so many came in a row that something else must be wrong. A full quota is waited for without end. An attempt that ran out of memory gets more
    where the spec allows it, and does not count then.
    """
    if failure.no_room:
        asked = min(history.disruptions + 1, FREE_DISRUPTIONS)
        return RetryPlan(min(SHORTEST_DELAY * 2 ** (asked - 1), LONGEST_QUOTA_DELAY), history.streak, asked)
    if failure.disrupted:
        return _after_disruption(spec, history, failure)
    if failure.final or failure.error_class in FINAL:
        return None
    memory = raised_memory(spec, history.memory) if failure.out_of_memory else None
    if memory:
        return RetryPlan(SHORTEST_DELAY, history.streak, memory=memory)
    retry = spec.retry
    behind = 1 if failure.progressed else history.streak + 1
    limit = retry.limit if failure.error_class == "TransientError" else min(retry.limit, CAUTIOUS_LIMIT)
    if behind > limit:
        return None
    delay = _backoff(retry, behind) if failure.retry_after is None else _wished(failure.retry_after)
    return RetryPlan(delay, behind)


def _after_disruption(spec: ConnectionSpec, history: RetryHistory, failure: AttemptFailure) -> RetryPlan | None:
    disruptions = 1 if failure.progressed else history.disruptions + 1
    if disruptions <= FREE_DISRUPTIONS:
        delay = min(SHORTEST_DELAY * 2 ** (disruptions - 1), LONGEST_DISRUPTION_DELAY)
        return RetryPlan(delay, history.streak, disruptions)
    counted = decide_retry(spec, history, AttemptFailure("TransientError", failure.progressed))
    return RetryPlan(max(counted.delay, LONGEST_DISRUPTION_DELAY), counted.streak, disruptions) if counted else None


def _backoff(retry: Retry, behind: int) -> float:
    delay = retry.backoff.initial.seconds * float(retry.backoff.factor) ** (behind - 1)
    return max(min(delay, retry.backoff.max.seconds, LONGEST_DELAY), 0.0)


def _wished(seconds: float) -> float:
    """Return the source's wish within bounds: what is past or no number means soon, and a day is the longest wait."""
    if math.isnan(seconds):
        return SHORTEST_DELAY
    return min(max(seconds, SHORTEST_DELAY), LONGEST_DELAY)
