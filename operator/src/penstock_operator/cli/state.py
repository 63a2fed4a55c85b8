"""`penstock state`: where each stream stands, and how to put it elsewhere."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from penstock_operator.cli.output import print_table
from penstock_operator.cli.session import DATA_DIR, CommandError, DataDir, session

app = typer.Typer(no_args_is_help=True, help="State: show, history, changes, reset, rewind, export, import.")
Which = Annotated[str, typer.Argument(metavar="NAMESPACE/CONNECTION", help="The connection.")]
Streams = Annotated[list[str] | None, typer.Option("--stream", "-s", help="A stream; may be given more than once.")]
Why = Annotated[str, typer.Option("--reason", help="Why, for the audit.")]


def _path(which: str) -> str:
    namespace, _, name = which.rpartition("/")
    return f"/connections/{namespace or 'default'}/{name}/state"


def _get(data_dir: Path, path: str, **parameters: Any) -> Any:
    async def act() -> Any:
        async with session(data_dir) as found:
            return await found.get(path, **parameters)

    return asyncio.run(act())


def _change(data_dir: Path, path: str, body: dict[str, Any]) -> None:
    async def act() -> Any:
        async with session(data_dir) as found:
            return await found.post(path, body)

    for row in asyncio.run(act()):
        where = "at the start" if row["cursor"] is None else f"at {json.dumps(row['cursor'])}"
        typer.echo(f"{row['stream']}: {where}, generation {row['generation']}, checkpoint {row['checkpoint']}")


@app.command()
def show(which: Which, data_dir: DataDir = DATA_DIR) -> None:
    """Show where each stream stands."""
    table = Table("stream", "generation", "checkpoint", "run", "updated", "cursor")
    for each in _get(data_dir, _path(which))["streams"]:
        numbers = (str(each["generation"]), str(each["checkpoint"]))
        table.add_row(each["name"], *numbers, each["run"] or "-", each["updatedAt"][:19], json.dumps(each["cursor"]))
    print_table(table)


@app.command()
def history(
    which: Which,
    stream: Annotated[str | None, typer.Option("--stream", "-s")] = None,
    limit: int = 20,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """List the newest checkpoints, to which a stream can be rewound."""
    table = Table("stream", "checkpoint", "generation", "run", "attempt", "committed", "cursor")
    for each in _get(data_dir, f"{_path(which)}/history", stream=stream, limit=limit):
        numbers = (str(each["checkpoint"]), str(each["generation"]), each["run_id"], str(each["attempt"]))
        table.add_row(each["stream"], *numbers, each["committed_at"][:19], json.dumps(each["cursor"]))
    print_table(table)


@app.command()
def changes(which: Which, limit: int = 20, data_dir: DataDir = DATA_DIR) -> None:
    """List who changed the state, when and how."""
    table = Table("stream", "action", "by", "at", "before", "after", "reason")
    for each in _get(data_dir, f"{_path(which)}/changes", limit=limit):
        seen = (json.dumps(each["before"].get("cursor")), json.dumps(each["after"].get("cursor")))
        table.add_row(
            each["stream"], each["action"], each["changed_by"], each["changed_at"][:19], *seen, each["reason"]
        )
    print_table(table)


@app.command()
def reset(
    which: Which,
    stream: Streams = None,
    everything: Annotated[bool, typer.Option("--all", help="All streams of the connection.")] = False,
    reason: Why = "",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Read streams anew, into a new generation of their Bronze objects; the other streams go on as they were."""
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
    """Put streams back: what lies after that point is read once more."""
    given = {"run": to_run, "checkpoint": to_checkpoint, "cursor": cursor}
    targets = {key: value for key, value in given.items() if value is not None}
    if len(targets) != 1:
        raise CommandError("give one of --to-run, --to-checkpoint and --cursor")
    if cursor is not None:
        targets["cursor"] = _parsed(cursor, "--cursor")
    _change(data_dir, f"{_path(which)}/rewind", {"streams": stream or [], "reason": reason, **targets})


@app.command("export")
def export_state(which: Which, data_dir: DataDir = DATA_DIR) -> None:
    """Print the state as JSON, ready for `penstock state import`."""
    typer.echo(json.dumps(_get(data_dir, _path(which)), indent=2))


@app.command("import")
def import_state(
    which: Which,
    file: Annotated[typer.FileText, typer.Argument(help="What export printed; - reads standard input.")],
    reason: Why = "",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Put streams where a document says; streams that it does not name stay where they are."""
    document = _parsed(file.read(), file.name if file is not sys.stdin else "standard input")
    _change(data_dir, f"{_path(which)}/import", {"document": document, "reason": reason})


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandError(f"{where}: not JSON: {error}") from None
