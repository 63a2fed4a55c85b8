"""The conformance suite as a command."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from penstock_sdk.author.command_errors import did_you_mean
from penstock_sdk.author.credential_file import CredentialFile
from penstock_sdk.author.project import ProjectError
from penstock_sdk.author.session import checked_target
from penstock_sdk.testing import (
    CHECKS,
    Check,
    CheckResult,
    Harness,
    build_report,
    is_conformant,
    open_target,
    run_checks,
    tree_digest,
)
from penstock_sdk.testing.report import count

FAILED, NOT_RUN = 1, 3


def run(file: Path, only: list[str], report: Path | None, say: Callable[[str], None]) -> int:
    """Run checks, print each result, and return the exit code."""
    chosen = _chosen(only)
    credentials = CredentialFile(file)
    with open_target(file) as target, Harness(checked_target(target, file)) as harness:
        harness.rotated_credentials.update(credentials.values)
        logs = _FailedLogs(harness)
        try:
            results = run_checks(harness, chosen, lambda result: say(_line(result) + logs.lines_for(result)))
        finally:
            credentials.values = harness.rotated_credentials
            credentials.save()
        document = build_report(harness, results, len(CHECKS))
    if report:
        report.write_text(json.dumps(document, indent=2) + "\n")
    counts = ", ".join(f"{number} {outcome}" for outcome, number in count(results).items())
    conformant = is_conformant(results, len(chosen))
    part = f" in {len(chosen)} of {len(CHECKS)} checks" if only else ""
    say(f"\n{counts}: {'conformant' if conformant else 'NOT conformant'}{part}, {tree_digest(harness.folder)}")
    failed = any(result.outcome == "failed" for result in results)
    incomplete = any(result.outcome == "not run" for result in results)
    return FAILED if failed else NOT_RUN if incomplete else 0


class _FailedLogs:
    """Stores the logs of the attempts of a failed check, and returns the failing attempt and its traceback."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._folder: Path | None = None
        self._seen = 0

    def lines_for(self, result: CheckResult) -> str:
        """Return the lines to add to a result; none if the check did not fail."""
        trials, self._seen = self._harness.trials[self._seen :], len(self._harness.trials)
        if result.outcome != "failed" or not trials:
            return ""
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="penstock-conformance-"))
        attempts = [attempt for trial in trials for attempt in trial.attempts]
        for number, attempt in enumerate(attempts, 1):
            (self._folder / f"{result.check.name}-attempt-{number:02d}.log").write_text(attempt.output)
        where = f"attempt {len(attempts)} of {len(attempts)}; its log: {self._folder}/{result.check.name}-attempt-{len(attempts):02d}.log"
        trace = traceback_in(attempts[-1].output) if attempts else ""
        return "".join(f"\n{'':16}{line}" for line in [where, *trace.splitlines()])


TRACE = "Traceback (most recent call last)"


def traceback_in(output: str) -> str:
    """Return the last traceback of a log, from a JSON line or as printed; nothing if there is none."""
    found = ""
    for line in output.splitlines():
        try:
            text = json.loads(line)["message"]
        except (ValueError, KeyError, TypeError):
            continue
        found = text[text.index(TRACE) :] if isinstance(text, str) and TRACE in text else found
    begin = output.rfind(f"\n{TRACE}")
    return found or (output[begin:].strip() if begin >= 0 else "")


def _chosen(only: list[str]) -> list[Check]:
    known = {check.name: check for check in CHECKS}
    unknown = sorted(set(only) - known.keys())
    if unknown:
        raise ProjectError(
            f"--only: there is no check {unknown[0]!r}{did_you_mean(unknown[0], known)}; there are: {', '.join(known)}"
        )
    return [check for check in CHECKS if not only or check.name in only]


def _line(result: CheckResult) -> str:
    line = f"{result.outcome:14}  {result.check.name:20} {result.seconds:5.1f} s  {result.detail}"
    return f"{line}\n{'':16}remedy: {result.check.remedy}" if result.outcome == "failed" else line


def listing() -> str:
    """Return the checks as text."""
    return "\n".join(f"{check.name}\n    proves: {check.proves}\n    remedy: {check.remedy}" for check in CHECKS)
