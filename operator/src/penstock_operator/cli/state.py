"""`penstock state`: show, export and import the state of a connection's streams, and reset or rewind it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue

from penstock_operator.api.models import CheckpointView, StateChangeView, StateSummary, StateView
from penstock_operator.cli.api_session import DATA_DIR, DataDir, with_session
from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.cli.names import connection_path
from penstock_operator.cli.output import ListingColumn, Output, OutputOption, moment, print_json, print_rows, printable
from penstock_operator.state.document import ExportedState, StateDocument

app = typer.Typer(no_args_is_help=True, help="State: show, history, changes, reset, rewind, export, import.")
Which = Annotated[str, typer.Argument(metavar="NAMESPACE/CONNECTION", help="The connection.")]
Streams = Annotated[list[str] | None, typer.Option("--stream", "-s", help="A stream; may be given more than once.")]
Why = Annotated[str, typer.Option("--reason", help="Why, for the audit.")]


def _path(which: str) -> str:
    return f"{connection_path(which)}/state"


def _change(data_dir: Path, path: str, body: JsonValue) -> None:
    for state in with_session(data_dir, lambda api: api.post(list[StateView], path, body)):
        cursor = "at the start" if state.cursor is None else f"at {json.dumps(state.cursor)}"
        typer.echo(printable(f"{state.stream}: {cursor}, generation {state.generation}, checkpoint {state.checkpoint}"))


def _document(data_dir: Path, which: str) -> StateDocument:
    return with_session(data_dir, lambda api: api.get(StateDocument, _path(which)))


def _cursor(summary: StateSummary | None) -> str:
    return json.dumps(summary.cursor if summary else None)


STATES: tuple[ListingColumn[ExportedState], ...] = (
    ListingColumn("stream", lambda state: state.name),
    ListingColumn("generation", lambda state: state.generation),
    ListingColumn("checkpoint", lambda state: state.checkpoint),
    ListingColumn("run", lambda state: state.run),
    ListingColumn("updated", lambda state: moment(state.updated_at)),
    ListingColumn("cursor", lambda state: json.dumps(state.cursor)),
)
CHECKPOINTS: tuple[ListingColumn[CheckpointView], ...] = (
    ListingColumn("stream", lambda checkpoint: checkpoint.stream),
    ListingColumn("checkpoint", lambda checkpoint: checkpoint.checkpoint),
    ListingColumn("generation", lambda checkpoint: checkpoint.generation),
    ListingColumn("run", lambda checkpoint: checkpoint.run_id),
    ListingColumn("attempt", lambda checkpoint: checkpoint.attempt),
    ListingColumn("committed", lambda checkpoint: moment(checkpoint.committed_at)),
    ListingColumn("cursor", lambda checkpoint: json.dumps(checkpoint.cursor)),
)
CHANGES: tuple[ListingColumn[StateChangeView], ...] = (
    ListingColumn("stream", lambda change: change.stream),
    ListingColumn("action", lambda change: change.action),
    ListingColumn("by", lambda change: change.changed_by),
    ListingColumn("at", lambda change: moment(change.changed_at)),
    ListingColumn("before", lambda change: _cursor(change.before)),
    ListingColumn("after", lambda change: _cursor(change.after)),
    ListingColumn("reason", lambda change: change.reason),
)
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many to show, the newest first.")]


@app.command()
def show(which: Which, output: OutputOption = Output.table, data_dir: DataDir = DATA_DIR) -> None:
    """Show the state of each stream.

    Example: penstock state show team-a/people
    """
    print_rows(_document(data_dir, which).streams, STATES, output)


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
    path = f"{_path(which)}/history"
    checkpoints = with_session(data_dir, lambda api: api.listing(CheckpointView, path, most=limit, stream=stream))
    print_rows(checkpoints, CHECKPOINTS, output)


@app.command()
def changes(which: Which, limit: Limit = 20, output: OutputOption = Output.table, data_dir: DataDir = DATA_DIR) -> None:
    """List who changed the state, when and how.

    Example: penstock state changes team-a/people -o json
    """
    path = f"{_path(which)}/changes"
    print_rows(with_session(data_dir, lambda api: api.listing(StateChangeView, path, most=limit)), CHANGES, output)


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
    _change(data_dir, f"{_path(which)}/reset", {"streams": [*(stream or ())], "reason": reason})


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
    given: dict[str, JsonValue] = {"run": to_run, "checkpoint": to_checkpoint, "cursor": cursor}
    targets: dict[str, JsonValue] = {key: value for key, value in given.items() if value is not None}
    if len(targets) != 1:
        raise CommandError("give one of --to-run, --to-checkpoint and --cursor")
    if cursor is not None:
        targets["cursor"] = _parsed(cursor, "--cursor")
    _change(data_dir, f"{_path(which)}/rewind", {"streams": [*(stream or ())], "reason": reason, **targets})


@app.command("export")
def export_state(which: Which, data_dir: DataDir = DATA_DIR) -> None:
    """Print the state as JSON, ready for `penstock state import`.

    Example: penstock state export team-a/people > people.json
    """
    print_json(_document(data_dir, which))


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


def _parsed(text: str, where: str) -> JsonValue:
    try:
        document: JsonValue = json.loads(text)
        return document
    except RecursionError:
        raise CommandError(f"{where}: not a state: it is nested too deeply") from None
    except ValueError as error:
        raise CommandError(f"{where}: not JSON: {error}") from None
