"""What a check is: a name, what it proves, the remedy if it fails, and a function."""

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
    """One property of a conformant connector. `run` returns what was observed, or raises Failed, NotRun or NotApplicable."""

    name: str
    proves: str
    remedy: str
    run: Callable[[Harness], str]


@dataclass(frozen=True)
class CheckResult:
    """The outcome of a check."""

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
    harness: Harness, checks: Sequence[Check], on_result: Callable[[CheckResult], None] = lambda _result: None
) -> list[CheckResult]:
    """Run checks in their order. `on_result` gets each result at once."""
    results = []
    for check in checks:
        results.append(run_check(check, harness))
        on_result(results[-1])
    return results
