"""The conformance report: which checks were run, and of which files."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import get_args

import msgspec

from penstock_sdk.json_types import JsonObject
from penstock_sdk.testing.checks import CheckResult, Outcome
from penstock_sdk.testing.dependencies import installed_dependencies, pinned
from penstock_sdk.testing.harness import Harness

REPORT_VERSION = 2


def tree_digest(folder: Path) -> str:
    """Return the digest of a package's files: the SHA-256 of one line `sha256  path` for each file, sorted by path.

    Compiled files are left out, so that the digest is the same wherever the same sources are installed.
    """
    paths = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return digest_of({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return the digest of files, given by path, as `tree_digest` does."""
    lines = [f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files)]
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def count(results: Sequence[CheckResult]) -> dict[str, int]:
    """Return the number of checks with each outcome."""
    counted = Counter(result.outcome for result in results)
    return {outcome: counted[outcome] for outcome in get_args(Outcome)}


def is_conformant(results: Sequence[CheckResult], wanted: int) -> bool:
    """Return True if every check has passed or does not apply. A check that was not run proves nothing."""
    return len(results) == wanted and all(result.outcome in ("passed", "not applicable") for result in results)


class TestedConnector(msgspec.Struct, frozen=True):
    """The three names of the connector."""

    name: str
    method: str
    version: str


class TestedArtifact(msgspec.Struct, frozen=True):
    """The files that were tested: the name of the package, and the digest of its files (`tree_digest`)."""

    kind: str
    package: str
    digest: str


class ReportedCheck(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of one check. Only a failed check has a remedy."""

    name: str
    outcome: str
    detail: str
    proves: str
    seconds: float
    remedy: str | None = None


class ConformanceReport(msgspec.Struct, frozen=True, rename="camel"):
    """The conformance report. `packages` are those with which the connector was tested; `counts` are by outcome."""

    report_version: int
    connector: TestedConnector
    artifact: TestedArtifact
    packages: list[str]
    conformant: bool
    counts: dict[str, int]
    checks: list[ReportedCheck]
    sdk: str
    python: str
    finished_at: str


def build_report(harness: Harness, results: Sequence[CheckResult], wanted: int) -> JsonObject:
    """Return the report as a JSON document."""
    identity = harness.identity
    report = ConformanceReport(
        report_version=REPORT_VERSION,
        connector=TestedConnector(identity.name, identity.method, identity.version),
        artifact=TestedArtifact("package-tree", harness.package, tree_digest(harness.folder)),
        packages=_packages(harness.distribution),
        conformant=is_conformant(results, wanted),
        counts=count(results),
        checks=[_reported(result) for result in results],
        sdk=metadata.version("penstock-sdk"),
        python=platform.python_version(),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )
    document: JsonObject = msgspec.to_builtins(report)
    return document


def _packages(distribution: str | None) -> list[str]:
    """Return the packages of the test. A requirement that is not installed is named, and ends the list."""
    found: list[str] = []
    try:
        for installed in installed_dependencies(distribution) if distribution else ():
            found.append(pinned(installed.name, installed.version))  # noqa: PERF401 - the packages before a missing one are reported
    except metadata.PackageNotFoundError as error:
        found.append(f"{error.name} (not installed)")
    return sorted(found)


def _reported(result: CheckResult) -> ReportedCheck:
    check = result.check
    remedy = check.remedy if result.outcome == "failed" else None
    return ReportedCheck(check.name, result.outcome, result.detail, check.proves, round(result.seconds, 2), remedy)
