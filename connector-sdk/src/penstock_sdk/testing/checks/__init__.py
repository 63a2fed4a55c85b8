"""The checks of the conformance suite."""

from __future__ import annotations

from penstock_sdk.testing.checks import catalog, complete_reads, cursors, faults, partitions, sandbox
from penstock_sdk.testing.checks.model import Check, CheckResult, Outcome, run_check, run_checks

__all__ = ["CHECKS", "Check", "CheckResult", "Outcome", "run_check", "run_checks"]

CHECKS: tuple[Check, ...] = (
    complete_reads.READS,
    *catalog.CHECKS,
    cursors.CURSOR_SAFETY,
    *complete_reads.CHECKS,
    partitions.PARTITIONS,
    *faults.CHECKS,
    *sandbox.CHECKS,
    complete_reads.SIGTERM,
    complete_reads.TIE,  # the last one, because it changes the source
)
"""All checks, in the order in which they are run."""
