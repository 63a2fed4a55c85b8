"""`penstock runs`: what ran, how it went, and what it said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.table import Table

from penstock_operator.cli.output import print_table
from penstock_operator.cli.session import DATA_DIR, CommandError, DataDir, Session, session
from penstock_operator.runs.ids import RUN_ID_LENGTH

app = typer.Typer(no_args_is_help=True, help="Runs: list, show, logs, start, backfill, cancel.")
RunId = Annotated[str, typer.Argument(help="A run's id, or the beginning of one of the newest thousand.")]
__all__ = ["CommandError", "app"]


def _with(data_dir: Path, act: Callable[[Session], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        async with session(data_dir) as found:
            return await act(found)

    return asyncio.run(opened())


async def _full_id(found: Session, run: str) -> str:
    """Return the run that is named, or begun: to look for one takes the right to list those of all namespaces."""
    if len(run) == RUN_ID_LENGTH:
        return run
    listed = [each["id"] for each in await found.get("/runs", limit=1000) if each["id"].startswith(run)]
    if len(listed) == 1:
        return str(listed[0])
    message = f"there is no run {run}" if not listed else f"{run} begins {len(listed)} runs; give more of it"
    raise CommandError(message)


@app.command("list")
def list_runs(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n")] = None,
    connection: Annotated[str | None, typer.Option("--connection", "-c")] = None,
    limit: int = 20,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """List the newest runs."""
    rows = _with(data_dir, lambda found: found.get("/runs", namespace=namespace, name=connection, limit=limit))
    table = Table("run", "connection", "definition", "phase", "attempt", "records", "rejected", "started", "message")
    for row in rows:
        where = f"{row['namespace']}/{row['name']}"
        numbers = (
            str(row["attempt"]),
            f"{row['committed_records']:,}",
            f"{row['rejected']:,}",
            (row["started_at"] or "-")[:19],
        )
        table.add_row(row["id"], where, row["definition"], row["phase"], *numbers, _said(row))
    print_table(table)


def _said(row: dict[str, Any]) -> str:
    waits = f"waits: {row['waits']}" if row.get("waits") else ""
    return "; ".join(filter(None, (waits, row["message"])))


@app.command()
def show(run: RunId, data_dir: DataDir = DATA_DIR) -> None:
    """Show one run with its attempts, as JSON."""

    async def act(found: Session) -> Any:
        return await found.get(f"/runs/{await _full_id(found, run)}")

    typer.echo(json.dumps(_with(data_dir, act), indent=2))


@app.command()
def logs(
    run: RunId,
    attempt: Annotated[int | None, typer.Option(min=1, help="One attempt; without it, the last.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended, attempt by attempt.")
    ] = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Print what a run's attempt said: live while it runs, and as it was kept afterwards."""

    async def act(found: Session) -> None:
        path = f"/runs/{await _full_id(found, run)}/logs"
        try:
            async for text in found.text(path, attempt=attempt, follow=follow or None):
                typer.echo(text, nl=False)
        except httpx.TransportError as error:
            message = f"the server's answer broke off ({type(error).__name__}); give the command again to go on"
            raise CommandError(message) from None

    _with(data_dir, act)


@app.command()
def start(connection: Annotated[str, typer.Argument(help="NAMESPACE/NAME")], data_dir: DataDir = DATA_DIR) -> None:
    """Run a connection now; a running platform carries it out."""
    namespace, _, name = connection.rpartition("/")
    body = {"namespace": namespace or "default", "name": name}
    typer.echo(_with(data_dir, lambda found: found.post("/runs", body))["id"])


@app.command()
def backfill(
    connection: Annotated[str, typer.Argument(help="NAMESPACE/NAME")],
    start: Annotated[str, typer.Option("--from", help="The first moment, such as 2026-01-01T00:00:00Z.")],
    end: Annotated[
        str | None, typer.Option("--to", help="The moment to stop before; now, where it is left out.")
    ] = None,
    stream: Annotated[list[str] | None, typer.Option("--stream", "-s", help="May be given more than once.")] = None,
    again: Annotated[
        bool, typer.Option("--reread", help="One run that reads the source's records of the window again.")
    ] = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Make a run for each tick of a window that has made none, or one that reads the window again; behind what is due."""
    namespace, _, name = connection.rpartition("/")
    body = {"namespace": namespace or "default", "name": name, "from": start, "to": end, "streams": stream or []}
    if again:
        typer.echo(_with(data_dir, lambda found: found.post("/runs/reread", body))["id"])
        return
    filled = _with(data_dir, lambda found: found.post("/runs/backfill", body))
    for each in filled:
        typer.echo(f"{each['id']}  {each['scheduled_at']}")
    if not filled:
        typer.echo("every tick of the window has made a run", err=True)


@app.command()
def cancel(
    run: Annotated[list[str], typer.Argument(help="Ids of runs, or the beginnings of them.")],
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Cancel runs: each stops at its next batch border, or is stopped soon; what is committed stays."""

    async def act(found: Session) -> list[str]:
        ids = [await _full_id(found, each) for each in run]
        return [(await found.post(f"/runs/{each}/cancel"))["phase"] for each in ids]

    for phase in _with(data_dir, act):
        typer.echo(phase)
