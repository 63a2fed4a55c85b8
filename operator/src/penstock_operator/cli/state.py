"""`penstock state`: where each stream stands, and how to put it elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock_operator.cli.api_session import DATA_DIR, DataDir, with_session
from penstock_operator.cli.exit_codes import CommandError, understood
from penstock_operator.cli.names import connection_path
from penstock_operator.cli.output import ListingColumn, Output, OutputOption, moment, print_rows, printable

app = typer.Typer(no_args_is_help=True, help="State: show, history, changes, reset, rewind, export, import.")
Which = Annotated[str, typer.Argument(metavar="NAMESPACE/CONNECTION", help="The connection.")]
Streams = Annotated[list[str] | None, typer.Option("--stream", "-s", help="A stream; may be given more than once.")]
Why = Annotated[str, typer.Option("--reason", help="Why, for the audit.")]


def _path(which: str) -> str:
    return f"{connection_path(which)}/state"


def _get(data_dir: Path, path: str, **parameters: Any) -> Any:
    return with_session(data_dir, lambda found: found.get(path, **parameters))


def _change(data_dir: Path, path: str, body: dict[str, Any]) -> None:
    rows = with_session(data_dir, lambda found: found.post(path, body))
    with understood():
        _print_changed(rows)


def _print_changed(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        where = "at the start" if row["cursor"] is None else f"at {json.dumps(row['cursor'])}"
        typer.echo(
            printable(f"{row['stream']}: {where}, generation {row['generation']}, checkpoint {row['checkpoint']}")
        )


STANDS = (
    ListingColumn("stream", lambda row: row["name"]),
    ListingColumn("generation", lambda row: row["generation"]),
    ListingColumn("checkpoint", lambda row: row["checkpoint"]),
    ListingColumn("run", lambda row: row["run"]),
    ListingColumn("updated", lambda row: moment(row["updatedAt"])),
    ListingColumn("cursor", lambda row: json.dumps(row["cursor"])),
)
CHECKPOINTS = (
    ListingColumn("stream", lambda row: row["stream"]),
    ListingColumn("checkpoint", lambda row: row["checkpoint"]),
    ListingColumn("generation", lambda row: row["generation"]),
    ListingColumn("run", lambda row: row["run_id"]),
    ListingColumn("attempt", lambda row: row["attempt"]),
    ListingColumn("committed", lambda row: moment(row["committed_at"])),
    ListingColumn("cursor", lambda row: json.dumps(row["cursor"])),
)
CHANGES = (
    ListingColumn("stream", lambda row: row["stream"]),
    ListingColumn("action", lambda row: row["action"]),
    ListingColumn("by", lambda row: row["changed_by"]),
    ListingColumn("at", lambda row: moment(row["changed_at"])),
    ListingColumn("before", lambda row: json.dumps((row["before"] or {}).get("cursor"))),
    ListingColumn("after", lambda row: json.dumps(row["after"].get("cursor"))),
    ListingColumn("reason", lambda row: row["reason"]),
)
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many to show, the newest first.")]


@app.command()
def show(which: Which, output: OutputOption = Output.table, data_dir: DataDir = DATA_DIR) -> None:
    """Show where each stream stands.

    Example: penstock state show team-a/people
    """
    document = _get(data_dir, _path(which))
    with understood():
        rows = document["streams"]
    print_rows(rows, STANDS, output)


@app.command()
def history(
    which: Which,
    stream: Annotated[str | None, typer.Option("--stream", "-s", help="One stream; without it, all.")] = None,
    limit: Limit = 20,
    output: OutputOption = Output.table,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """List the newest checkpoints, to which a stream can be rewound.

    Example: penstock state history team-a/people --stream people --limit 5
    """
    print_rows(_get(data_dir, f"{_path(which)}/history", stream=stream, limit=limit), CHECKPOINTS, output)


@app.command()
def changes(which: Which, limit: Limit = 20, output: OutputOption = Output.table, data_dir: DataDir = DATA_DIR) -> None:
    """List who changed the state, when and how.

    Example: penstock state changes team-a/people -o json
    """
    print_rows(_get(data_dir, f"{_path(which)}/changes", limit=limit), CHANGES, output)


@app.command()
def reset(
    which: Which,
    stream: Streams = None,
    everything: Annotated[bool, typer.Option("--all", help="All streams of the connection.")] = False,
    reason: Why = "",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Read streams anew, into a new generation of their Bronze objects; the other streams go on as they were.

    Example: penstock state reset team-a/people --stream people --reason "the source was restored"
    """
    if bool(stream) == everything:
        raise CommandError("give the streams with --stream, or --all")
    _change(data_dir, f"{_path(which)}/reset", {"streams": stream or [], "reason": reason})


@app.command()
def rewind(
    which: Which,
    stream: Streams = None,
    to_run: Annotated[str | None, typer.Option(help="To where this run left the streams.")] = None,
    to_checkpoint: Annotated[int | None, typer.Option(help="To a checkpoint of one stream's history.")] = None,
    cursor: Annotated[str | None, typer.Option(help="To a cursor of one stream, as JSON.")] = None,
    reason: Why = "",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Put streams back: what lies after that point is read once more.

    Example: penstock state rewind team-a/people --stream people --to-checkpoint 3
    """
    given = {"run": to_run, "checkpoint": to_checkpoint, "cursor": cursor}
    targets = {key: value for key, value in given.items() if value is not None}
    if len(targets) != 1:
        raise CommandError("give one of --to-run, --to-checkpoint and --cursor")
    if cursor is not None:
        targets["cursor"] = _parsed(cursor, "--cursor")
    _change(data_dir, f"{_path(which)}/rewind", {"streams": stream or [], "reason": reason, **targets})


@app.command("export")
def export_state(which: Which, data_dir: DataDir = DATA_DIR) -> None:
    """Print the state as JSON, ready for `penstock state import`.

    Example: penstock state export team-a/people > people.json
    """
    typer.echo(json.dumps(_get(data_dir, _path(which)), indent=2))


@app.command("import")
def import_state(
    which: Which,
    file: Annotated[str, typer.Argument(help="What export printed; - reads standard input.")],
    reason: Why = "",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Put streams where a document says; streams that it does not name stay where they are.

    Example: penstock state import team-a/people people.json
    """
    document = _parsed(_read(file), file)
    _change(data_dir, f"{_path(which)}/import", {"document": document, "reason": reason})


def _read(file: str) -> str:
    try:
        return sys.stdin.buffer.read().decode() if file == "-" else Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"{file}: not UTF-8; give the file that `penstock state export` printed") from None
    except (OSError, ValueError) as error:
        raise CommandError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise CommandError(f"{where}: not a state: it is nested too deeply") from None
    except ValueError as error:
        raise CommandError(f"{where}: not JSON: {error}") from None
