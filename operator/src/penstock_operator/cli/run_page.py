"""The page of `penstock runs show`: the facts of a run, then its streams, then its attempts."""

from __future__ import annotations

from collections.abc import Iterable

import typer

from penstock_operator.api.models import AttemptView, RunDetailView, RunStreamView
from penstock_operator.cli.output import ListingColumn, Output, moment, print_json, print_rows, printable

STREAMS: tuple[ListingColumn[RunStreamView], ...] = (
    ListingColumn("stream", lambda stream: stream.stream),
    ListingColumn("attempt", lambda stream: stream.attempt),
    ListingColumn("outcome", lambda stream: stream.outcome),
    ListingColumn("error_class", lambda stream: stream.error_class),
    ListingColumn("message", lambda stream: stream.message),
    ListingColumn("records", lambda stream: stream.records),
    ListingColumn("deletes", lambda stream: stream.deletes),
    ListingColumn("rejected", lambda stream: stream.rejected),
)
ATTEMPTS: tuple[ListingColumn[AttemptView], ...] = (
    ListingColumn("attempt", lambda attempt: attempt.attempt),
    ListingColumn("phase", lambda attempt: attempt.phase),
    ListingColumn("started", lambda attempt: moment(attempt.started_at)),
    ListingColumn("finished", lambda attempt: moment(attempt.finished_at)),
    ListingColumn("exit code", lambda attempt: attempt.exit_code),
    ListingColumn("class", lambda attempt: attempt.error_class or attempt.reason),
    ListingColumn("message", lambda attempt: attempt.message),
)


def print_run(run: RunDetailView, output: Output) -> None:
    """Print a run: as JSON all of it, as CSV its attempts, as a table with its streams and attempts below it."""
    if output is Output.json:
        print_json(run)
        return
    if output is Output.table:
        facts = [(title, fact) for title, fact in _facts(run) if fact not in (None, "")]
        typer.echo("\n".join(printable(f"{title + ':':<13}{fact}") for title, fact in facts))
        if run.streams:
            print_rows(run.streams, STREAMS, output)
        if run.more_streams:
            typer.echo(f"only the first {len(run.streams):,} streams are shown, those that failed before the others")
    if output is Output.csv or run.attempts:
        print_rows(run.attempts, ATTEMPTS, output)
    if run.more_attempts:
        typer.echo(f"only the newest {len(run.attempts):,} attempts are shown", err=output is Output.csv)


def _facts(run: RunDetailView) -> Iterable[tuple[str, str | None]]:
    retry = moment(run.next_attempt_at) if run.phase == "pending" and run.attempt else None
    return (
        ("run", run.id),
        ("connection", f"{run.namespace}/{run.name}"),
        ("definition", run.definition),
        ("phase", run.phase),
        ("reason", run.error_class or run.reason),
        ("message", run.message),
        ("waits", run.waits),
        ("trigger", run.trigger),
        ("scheduled", moment(run.scheduled_at)),
        ("created", moment(run.created_at)),
        ("started", moment(run.started_at)),
        ("finished", moment(run.finished_at)),
        ("next retry", retry),
        ("records", f"{run.committed_records:,}"),
        ("rejected", f"{run.rejected:,}"),
        ("bytes", f"{run.bytes:,}"),
        ("objects", f"{run.objects:,}"),
    )
