"""What a run that ran out of memory is told, and gets. Pure."""

from __future__ import annotations

from typing import Any

from penstock_operator.resources.models import OnOutOfMemory
from penstock_operator.resources.notations import MemorySize, about

PEAK = "rss_peak_bytes"
NEARLY = 0.9


def raised_memory(spec: dict[str, Any], current: str) -> str | None:
    """Return the memory for the next attempt, None where the spec allows no more than `current`."""
    policy = spec.get("resources", {}).get("onOutOfMemory")
    if policy is None:
        return None
    wanted = OnOutOfMemory.model_validate(policy)
    had, most = MemorySize(current).bytes, wanted.max.bytes
    if had >= most:
        return None
    return wanted.max if had * wanted.factor >= most else MemorySize.of(had * wanted.factor)


def ran_out(limit: str, metrics: dict[str, float]) -> bool:
    """Say whether an attempt that was killed without a word had used up its memory, as far as was seen."""
    return metrics.get(PEAK, 0) >= NEARLY * MemorySize(limit).bytes


def out_of_memory_message(spec: dict[str, Any], limit: str, metrics: dict[str, float]) -> str:
    """Say how much there was, how much was seen in use, and what happens or what to do."""
    peak = f"its last heartbeat reported a peak of {about(metrics[PEAK])}" if PEAK in metrics else "no heartbeat came"
    told = f"the connector used more memory than its limit of {limit} ({peak})"
    following = raised_memory(spec, limit)
    if following:
        return f"{told}; the next attempt gets {following}, as spec.resources.onOutOfMemory allows"
    if spec.get("resources", {}).get("onOutOfMemory"):
        return f"{told}; spec.resources.onOutOfMemory.max allows no more: raise it, or select fewer streams"
    return f"{told}; raise spec.resources.limits.memory, or set spec.resources.onOutOfMemory to have it raised"
