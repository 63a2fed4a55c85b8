"""The circuit breaker: a connection whose runs fail one after the other is left alone for longer and longer. Pure."""

from __future__ import annotations

from datetime import datetime

from penstock_operator.resources.conditions import Finding, Reason, moment

TOLERATED = 2
FIRST_PAUSE, LONGEST_PAUSE = 300.0, 6 * 3600.0


def pause_after(failures: int) -> float:
    """Return for how many seconds no tick makes a run, after so many failed runs in a row."""
    if failures <= TOLERATED:
        return 0.0
    return float(min(FIRST_PAUSE * 2 ** min(failures - TOLERATED - 1, 20), LONGEST_PAUSE))


def paused(failures: int, until: datetime | None, now: datetime) -> Finding | None:
    """Return what the status says of a connection that is left alone, None where it is not."""
    if until is None or until <= now or failures <= TOLERATED:
        return None
    reason: Reason = "CircuitOpen"
    message = (
        f"{failures} runs failed in a row: the next is made at {moment(until)} or later; a change of the spec or of"
        " the definition, or a request (penstock.io/requestedAt), ends the pause at once"
    )
    return Finding("failing", reason, message)
