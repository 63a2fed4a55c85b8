"""How `penstock up` goes, on stderr: a live line for each run on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from penstock_operator.cli.output import printable_block
from penstock_operator.embedded.runner import ProgressReporter, RunProgress

MARKS = {"succeeded": "[green]✔[/]", "failed": "[red]✘[/]", "cancelled": "[yellow]■[/]", "invalid": "[red]✘[/]"}
"""The sign of each phase in which a connection's run has ended."""


class PlainLines:
    """A line whenever something has changed."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str) -> None:
        """Print it."""
        self._console.print(Text(printable_block(text)), soft_wrap=True)

    def run(self, seen: RunProgress) -> None:
        """Print where the run stands."""
        why = f": {seen.message}" if seen.message else ""
        if seen.phase == "invalid":
            self.line(f"{seen.connection}: invalid{why}")
        else:
            self.line(f"{seen.connection}: {seen.phase}, attempt {seen.attempt}, {seen.records} records{why}")


class LiveLines(PlainLines):
    """One line a run, which changes in place; what else is said scrolls above them."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress.console)
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def run(self, seen: RunProgress) -> None:
        """Change the run's line."""
        if seen.connection not in self._tasks:
            self._tasks[seen.connection] = self._progress.add_task(seen.connection, total=None, mark=" ", state="")
        task, ended = self._tasks[seen.connection], seen.phase in MARKS
        retries = f", attempt {seen.attempt}" if seen.attempt > 1 else ""
        state = f"{seen.phase}{retries}, {seen.records:,} records"
        self._progress.update(task, mark=MARKS.get(seen.phase, " "), state=state)
        if ended:
            self._progress.update(task, total=1, completed=1)
        if seen.message and seen.phase != "cancelled":
            self.line(f"{seen.connection}: {seen.message}")


@contextmanager
def report_to(console: Console) -> Iterator[ProgressReporter]:
    """Report to a console in the way that suits it."""
    if not console.is_terminal:
        yield PlainLines(console)
        return
    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.fields[mark]}"),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield LiveLines(progress)
