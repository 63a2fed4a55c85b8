"""What a run that ran out of memory is told, and gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from penstock_operator.resources.models import ConnectionSpec
from penstock_operator.resources.notations import MemorySize, about

PEAK = "rss_peak_bytes"
NEARLY = 0.9


def raised_memory(spec: ConnectionSpec, current: str) -> str | None:
    """Return the memory for the next attempt, None where the spec allows no more than `current`."""
    policy = spec.resources.on_out_of_memory
    if policy is None:
        return None
    had, most = MemorySize(current).bytes, policy.max.bytes
    if had >= most:
        return None
    return policy.max if had * policy.factor >= most else MemorySize.of(had * policy.factor)


def ran_out(limit: str, metrics: Mapping[str, float]) -> bool:
    """Say whether an attempt that was killed without a word had used up its memory, as far as was seen."""
    return metrics.get(PEAK, 0) >= NEARLY * MemorySize(limit).bytes


def out_of_memory_message(spec: ConnectionSpec, limit: str, metrics: Mapping[str, float]) -> str:
    """Say how much there was, how much was seen in use, and what happens or what to do."""
    peak = f"its last heartbeat reported a peak of {about(metrics[PEAK])}" if PEAK in metrics else "no heartbeat came"
    told = f"the connector used more memory than its limit of {limit} ({peak})"
    following = raised_memory(spec, limit)
    if following:
        return f"{told}; the next attempt gets {following}, as spec.resources.onOutOfMemory allows"
    if spec.resources.on_out_of_memory:
        return f"{told}; spec.resources.onOutOfMemory.max allows no more: raise it, or select fewer streams"
    return f"{told}; raise spec.resources.limits.memory, or set spec.resources.onOutOfMemory to have it raised"
