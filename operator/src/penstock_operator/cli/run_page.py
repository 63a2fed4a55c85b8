"""`penstock runs show`: one run for people, part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import typer

from penstock_operator.cli.exit_codes import understood
from penstock_operator.cli.output import ListingColumn, Output, Row, moment, print_json, print_rows, printable

ATTEMPTS = (
    ListingColumn("attempt", lambda row: row["attempt"]),
    ListingColumn("phase", lambda row: row["phase"]),
    ListingColumn("started", lambda row: moment(row["started_at"])),
    ListingColumn("finished", lambda row: moment(row["finished_at"])),
    ListingColumn("exit code", lambda row: row["exit_code"]),
    ListingColumn("class", lambda row: row["error_class"] or row["reason"]),
    ListingColumn("message", lambda row: row["message"]),
)


def print_run(run: Row, output: Output) -> None:
    """Print a run: as JSON whole, as CSV its attempts, as a table with its streams and attempts below it."""
    if output is Output.json:
        print_json(run)
        return
    if output is Output.table:
        with understood():
            lines = [printable(f"{title + ':':<13}{value}") for title, value in _facts(run) if value not in (None, "")]
        typer.echo("\n".join(lines))
        _print_streams(run.get("streams"))
    with understood():
        attempts = run["attempts"]
    if output is Output.csv or attempts:
        print_rows(attempts, ATTEMPTS, output)


def _facts(run: Row) -> Iterable[tuple[str, Any]]:
    retry = moment(run["next_attempt_at"]) if run["phase"] == "pending" and run["attempt"] else None
    return (
        ("run", run["id"]),
        ("connection", f"{run['namespace']}/{run['name']}"),
        ("definition", run["definition"]),
        ("phase", run["phase"]),
        ("reason", run["error_class"] or run["reason"]),
        ("message", run["message"]),
        ("waits", run["waits"]),
        ("trigger", run["trigger"]),
        ("scheduled", moment(run["scheduled_at"])),
        ("created", moment(run["created_at"])),
        ("started", moment(run["started_at"])),
        ("finished", moment(run["finished_at"])),
        ("next retry", retry),
        ("records", f"{run['committed_records']:,}"),
        ("rejected", f"{run['rejected']:,}"),
        ("bytes", f"{run['bytes']:,}"),
        ("objects", f"{run['objects']:,}"),
    )


def _print_streams(streams: Any) -> None:
    """Print what became of each stream, where the run says it; the fields are what the API gives."""
    rows = list(_stream_rows(streams))
    if not rows:
        return
    titles = list(dict.fromkeys(key for row in rows for key in row))
    columns = [ListingColumn(title, lambda row, title=title: _cell(row.get(title))) for title in titles]  # type: ignore[misc]
    print_rows(rows, columns, Output.table)


def _stream_rows(streams: Any) -> Iterator[Row]:
    if isinstance(streams, dict):
        streams = [
            {"stream": name, **(said if isinstance(said, dict) else {"outcome": said})}
            for name, said in streams.items()
        ]
    for stream in streams if isinstance(streams, list) else ():
        if isinstance(stream, dict):
            yield stream


def _cell(value: Any) -> str | int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    return value if isinstance(value, str) else str(value)
