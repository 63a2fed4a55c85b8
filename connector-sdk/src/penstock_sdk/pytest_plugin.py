"""The conformance suite in pytest: each check is a test.

A `connector.test.yaml` is collected as it is. A subject that needs servers of the test's own is a fixture,
`conformance_target`; a test that takes `conformance_check` is then run once for each check:

    @pytest.fixture(scope="module")
    def conformance_target(database): return Target(artifact="postgres-sql", config={...}, credentials={...})

    def test_conformance(conformance_check): conformance_check()

A check that was not run is a skipped test with the reason. `--conformance-report` writes the report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # pytest loads every plugin, and the import of the suite takes long
    from penstock_sdk.testing import Check, CheckResult, Harness

__all__ = [
    "conformance_check",
    "conformance_harness",
]

FILE = "connector.test.yaml"
FIXTURE = "conformance_check"
RESULTS = pytest.StashKey[dict[int, tuple["Harness", list["CheckResult"]]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the report."""
    group = parser.getgroup("penstock")
    group.addoption("--conformance-report", metavar="PATH", help="write the conformance report as JSON")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the file of a target."""
    return ConformanceFile.from_parent(parent, path=file_path) if file_path.name == FILE else None


class ConformanceFile(pytest.File):
    """The checks of one target. Its source runs during the checks."""

    def collect(self) -> Iterator[pytest.Item]:
        """Return a test for each check."""
        from penstock_sdk.testing import CHECKS

        for check in CHECKS:
            yield CheckItem.from_parent(self, name=check.name, check=check)

    def setup(self) -> None:
        """Start the source."""
        from penstock_sdk.testing import Harness, open_target

        self.stack = ExitStack()
        self.harness = self.stack.enter_context(Harness(self.stack.enter_context(open_target(self.path))))

    def teardown(self) -> None:
        """Stop the source."""
        self.stack.close()


class CheckItem(pytest.Item):
    """One check as a test."""

    def __init__(self, *, check: Check, **rest: Any) -> None:
        super().__init__(**rest)
        self.check = check

    def runtest(self) -> None:
        """Run the check."""
        parent = self.parent
        assert isinstance(parent, ConformanceFile)  # noqa: S101 - only ConformanceFile collects CheckItems
        _run(self.check, parent.harness, self.config)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the message of the check without a traceback."""
        if isinstance(excinfo.value, pytest.fail.Exception):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the name of the check."""
        return self.path, None, f"conformance: {self.name}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the fixture once for each check."""
    if FIXTURE in metafunc.fixturenames:
        from penstock_sdk.testing import CHECKS

        metafunc.parametrize(FIXTURE, CHECKS, ids=[check.name for check in CHECKS], indirect=True, scope="function")


@pytest.fixture(scope="module")
def conformance_harness(conformance_target: Any) -> Iterator[Any]:
    """Yield the harness of the target, the same for all checks."""
    from penstock_sdk.testing import Harness

    with Harness(conformance_target) as harness:
        yield harness


@pytest.fixture
def conformance_check(request: pytest.FixtureRequest, conformance_harness: Any) -> Callable[[], None]:
    """Return the function that runs one check."""
    return lambda: _run(request.param, conformance_harness, request.config)


def _run(check: Check, harness: Harness, config: pytest.Config) -> None:
    from penstock_sdk.testing import run_check

    result = run_check(check, harness)
    stored = config.stash.setdefault(RESULTS, {})
    stored.setdefault(id(harness), (harness, []))[1].append(result)
    if result.outcome == "failed":
        pytest.fail(f"{result.detail}\nremedy: {check.remedy}", pytrace=False)
    if result.outcome != "passed":
        pytest.skip(f"{result.outcome}: {result.detail}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report of one target, or a list of the reports of several."""
    path, stored = session.config.getoption("conformance_report"), session.config.stash.get(RESULTS, {})
    if path and stored:
        from penstock_sdk.testing import CHECKS, build_report

        reports = [build_report(harness, results, len(CHECKS)) for harness, results in stored.values()]
        Path(path).write_text(json.dumps(reports[0] if len(reports) == 1 else reports, indent=2) + "\n")
