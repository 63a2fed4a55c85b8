"""The conformance report: which checks were run, and of which files."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

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


def build_report(harness: Harness, results: Sequence[CheckResult], wanted: int) -> dict[str, Any]:
    """Return the report as a JSON document."""
    identity = harness.identity
    return {
        "reportVersion": REPORT_VERSION,
        "connector": {"name": identity.name, "method": identity.method, "version": identity.version},
        "artifact": {"kind": "package-tree", "package": harness.package, "digest": tree_digest(harness.folder)},
        "packages": _packages(harness.distribution),
        "conformant": is_conformant(results, wanted),
        "counts": count(results),
        "checks": [_row(result) for result in results],
        "sdk": metadata.version("penstock-sdk"),
        "python": platform.python_version(),
        "finishedAt": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def _packages(distribution: str | None) -> list[str]:
    """Return the packages of the test. A requirement that is not installed is named, and ends the list."""
    found: list[str] = []
    try:
        for installed in installed_dependencies(distribution) if distribution else ():
            found.append(pinned(installed.name, installed.version))  # noqa: PERF401 - the packages before a missing one are reported
    except metadata.PackageNotFoundError as error:
        found.append(f"{error.name} (not installed)")
    return sorted(found)


def _row(result: CheckResult) -> dict[str, Any]:
    return {
        "name": result.check.name,
        "outcome": result.outcome,
        "detail": result.detail,
        "proves": result.check.proves,
        **({"remedy": result.check.remedy} if result.outcome == "failed" else {}),
        "seconds": round(result.seconds, 2),
    }
