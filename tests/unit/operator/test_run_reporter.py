"""How a run goes is told in place on a terminal, and line by line elsewhere."""

from __future__ import annotations

import io

from penstock_operator.cli.run_reporter import report_to
from penstock_operator.embedded.runner import RunProgress
from rich.console import Console

RUNNING = RunProgress("team/orders", "running", 1, 1000)
FAILED = RunProgress("team/orders", "failed", 3, 1000, "the source [red] is away")


def told(*seen: RunProgress, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    with report_to(console) as report:
        for item in seen:
            report.run(item)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_elsewhere_each_change_is_a_plain_line() -> None:
    assert told(RUNNING, FAILED, terminal=False).splitlines() == [
        "team/orders: running, attempt 1, 1000 records",
        "team/orders: failed, attempt 3, 1000 records: the source [red] is away",
    ]


def test_on_a_terminal_a_run_is_one_line_that_ends_with_a_mark_and_its_message_stays() -> None:
    text = told(RUNNING, FAILED, terminal=True)
    assert "team/orders: the source [red] is away" in text
    assert "✘ team/orders failed, attempt 3, 1,000 records" in text


def test_what_cannot_run_is_told_too() -> None:
    invalid = RunProgress("team/orders", "invalid", 0, 0, "spec.schedule: no")
    assert told(invalid, terminal=False) == "team/orders: invalid: spec.schedule: no\n"
    assert "spec.schedule: no" in told(invalid, terminal=True)
