"""What a conformant connector does, check by check."""

from __future__ import annotations

from penstock_sdk.testing.checks import catalog, conduct, cursors, faults, parts, reading
from penstock_sdk.testing.checks.model import Check, Outcome, Verdict, judge, judge_all

__all__ = ["CHECKS", "Check", "Outcome", "Verdict", "judge", "judge_all"]

CHECKS: tuple[Check, ...] = (
    reading.READS,
    *catalog.CHECKS,
    cursors.CURSOR_SAFETY,
    *reading.CHECKS,
    parts.PARTITIONS,
    *faults.CHECKS,
    *conduct.CHECKS,
    reading.SIGTERM,
    reading.TIE,  # the last: it changes the source
)
"""All checks, in the order in which they are run."""
