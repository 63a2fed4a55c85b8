"""The checks: each an object with a name, what it proves, and the remedy when it fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from penstock_sdk.errors import ConnectorError
from penstock_sdk.testing.laboratory import Failed, Laboratory, NotApplicable, NotRun

Outcome = Literal["passed", "failed", "not run", "not applicable"]


@dataclass(frozen=True)
class Check:
    """One thing that a conformant connector does. `run` returns what was seen, or raises an outcome."""

    name: str
    proves: str
    remedy: str
    run: Callable[[Laboratory], str]


@dataclass(frozen=True)
class Verdict:
    """What became of a check."""

    check: Check
    outcome: Outcome
    detail: str
    seconds: float


def judge(check: Check, laboratory: Laboratory) -> Verdict:
    """Run a check."""
    began = time.monotonic()
    outcome, detail = _outcome(check, laboratory)
    return Verdict(check, outcome, detail, time.monotonic() - began)


def _outcome(check: Check, laboratory: Laboratory) -> tuple[Outcome, str]:
    try:
        return "passed", check.run(laboratory)
    except Failed as failed:
        return "failed", str(failed)
    except ConnectorError as error:
        return "failed", error.message
    except NotRun as missing:
        return "not run", str(missing)
    except NotApplicable as why:
        return "not applicable", str(why)


def judge_all(
    laboratory: Laboratory, checks: Sequence[Check], heard: Callable[[Verdict], None] = lambda _verdict: None
) -> list[Verdict]:
    """Run checks in their order; `heard` is told each verdict as it falls."""
    verdicts = []
    for check in checks:
        verdicts.append(judge(check, laboratory))
        heard(verdicts[-1])
    return verdicts
