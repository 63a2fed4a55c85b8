"""The conformance suite at the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from penstock_sdk.author.project import ProjectError
from penstock_sdk.testing import CHECKS, Check, Laboratory, Verdict, is_conformant, judge_all, opened_subject, report_of
from penstock_sdk.testing.report import count

FAILED, NOT_RUN = 1, 3


def run(file: Path, only: list[str], report: Path | None, say: Callable[[str], None]) -> int:
    """Run checks, say what became of each, and return the exit code."""
    chosen = _chosen(only)
    with opened_subject(file) as subject, Laboratory(subject) as laboratory:
        verdicts = judge_all(laboratory, chosen, lambda verdict: say(_line(verdict)))
        document = report_of(laboratory, verdicts, len(CHECKS))
    if report:
        report.write_text(json.dumps(document, indent=2) + "\n")
    counts = ", ".join(f"{number} {outcome}" for outcome, number in count(verdicts).items())
    conformant = is_conformant(verdicts, len(CHECKS))
    say(f"\n{counts}: {'conformant' if conformant else 'NOT conformant'}, {document['artifact']['digest']}")
    failed = any(verdict.outcome == "failed" for verdict in verdicts)
    incomplete = any(verdict.outcome == "not run" for verdict in verdicts)
    return FAILED if failed else NOT_RUN if incomplete else 0


def _chosen(only: list[str]) -> list[Check]:
    known = {check.name: check for check in CHECKS}
    unknown = sorted(set(only) - known.keys())
    if unknown:
        raise ProjectError(f"--only: there is no check {unknown[0]!r}; there are: {', '.join(known)}")
    return [check for check in CHECKS if not only or check.name in only]


def _line(verdict: Verdict) -> str:
    line = f"{verdict.outcome:14}  {verdict.check.name:20} {verdict.seconds:5.1f} s  {verdict.detail}"
    return f"{line}\n{'':16}remedy: {verdict.check.remedy}" if verdict.outcome == "failed" else line


def listing() -> str:
    """Return the checks as text."""
    return "\n".join(f"{each.name}\n    proves: {each.proves}\n    remedy: {each.remedy}" for each in CHECKS)
