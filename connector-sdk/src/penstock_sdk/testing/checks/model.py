"""The checks: each an object with a name, what it proves, and the remedy when it fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from penstock_sdk.errors import ConnectorError
from penstock_sdk.testing.harness import Failed, Harness, NotApplicable, NotRun

Outcome = Literal["passed", "failed", "not run", "not applicable"]


@dataclass(frozen=True)
class Check:
    """One thing that a conformant connector does. `run` returns what was seen, or raises an outcome."""

    name: str
    proves: str
    remedy: str
    run: Callable[[Harness], str]


@dataclass(frozen=True)
class CheckResult:
    """What became of a check."""

    check: Check
    outcome: Outcome
    detail: str
    seconds: float


def run_check(check: Check, harness: Harness) -> CheckResult:
    """Run a check."""
    began = time.monotonic()
    outcome, detail = _outcome(check, harness)
    return CheckResult(check, outcome, detail, time.monotonic() - began)


def _outcome(check: Check, harness: Harness) -> tuple[Outcome, str]:
    try:
        return "passed", check.run(harness)
    except Failed as failed:
        return "failed", str(failed)
    except ConnectorError as error:
        return "failed", error.message
    except NotRun as missing:
        return "not run", str(missing)
    except NotApplicable as why:
        return "not applicable", str(why)


def run_checks(
    harness: Harness, checks: Sequence[Check], heard: Callable[[CheckResult], None] = lambda _verdict: None
) -> list[CheckResult]:
    """Run checks in their order; `heard` is told each verdict as it falls."""
    results = []
    for check in checks:
        results.append(run_check(check, harness))
        heard(results[-1])
    return results
