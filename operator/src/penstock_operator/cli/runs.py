"""`penstock runs`: list, show, start, backfill and cancel runs, and print their logs."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import Annotated

import httpx
import typer
from pydantic import JsonValue

from penstock_operator.api.models import BackfilledRun, CancelledRun, RunDetailView, RunView, StartedRun
from penstock_operator.cli.api_session import DATA_DIR, ApiSession, DataDir, with_session
from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.cli.names import connection_name
from penstock_operator.cli.output import ListingColumn, Output, OutputOption, moment, print_rows, written
from penstock_operator.cli.run_page import print_run
from penstock_operator.ids import RUN_ID_LENGTH

app = typer.Typer(no_args_is_help=True, help="Runs: list, show, logs, start, backfill, cancel.")
NEWEST_RUNS = 1000
"""How many runs are searched for one that begins with the given text."""
RUN = re.compile("[0-9a-z]+")
RunId = Annotated[str, typer.Argument(help="A run's id, or the beginning of one of the newest thousand.")]


async def _full_id(api: ApiSession, run: str) -> str:
    """Return the id of a run by itself or by its beginning, which takes the right to list runs of all namespaces."""
    if not RUN.fullmatch(run):
        raise CommandError(f"{run!r} is not the id of a run; `penstock runs list` shows ids")
    if len(run) == RUN_ID_LENGTH:
        return run
    newest = await api.listing(RunView, "/runs", most=NEWEST_RUNS)
    listed = [other.id for other in newest if other.id.startswith(run)]
    if len(listed) == 1:
        return listed[0]
    message = f"there is no run {run}" if not listed else f"{run} begins {len(listed)} runs; give more of it"
    raise CommandError(message)


def _message(run: RunView) -> str:
    waits = f"waits: {run.waits}" if run.waits else ""
    return "; ".join(filter(None, (waits, run.message)))


COLUMNS: tuple[ListingColumn[RunView], ...] = (
    ListingColumn("run", lambda run: run.id),
    ListingColumn("connection", lambda run: f"{run.namespace}/{run.name}"),
    ListingColumn("definition", lambda run: run.definition),
    ListingColumn("phase", lambda run: run.phase),
    ListingColumn("attempt", lambda run: run.attempt),
    ListingColumn("records", lambda run: run.committed_records),
    ListingColumn("rejected", lambda run: run.rejected),
    ListingColumn("started", lambda run: moment(run.started_at)),
    ListingColumn("message", _message),
)


@app.command("list")
def list_runs(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="One namespace; without it, all.")] = None,
    connection: Annotated[str | None, typer.Option("--connection", "-c", help="The name of a connection.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to show, the newest first.")] = 20,
    output: OutputOption = Output.table,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """List the newest runs.

    Example: penstock runs list --namespace team-a --limit 5 -o csv
    """
    runs = with_session(
        data_dir, lambda api: api.listing(RunView, "/runs", most=limit, namespace=namespace, name=connection)
    )
    print_rows(runs, COLUMNS, output)


@app.command()
def show(run: RunId, output: OutputOption = Output.table, data_dir: DataDir = DATA_DIR) -> None:
    """Show one run with its streams and attempts.

    Example: penstock runs show 01jd -o json
    """

    async def detail(api: ApiSession) -> RunDetailView:
        return await api.get(RunDetailView, f"/runs/{await _full_id(api, run)}")

    print_run(with_session(data_dir, detail), output)


@app.command()
def logs(
    run: RunId,
    attempt: Annotated[int | None, typer.Option(min=1, help="One attempt; without it, the last.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended, attempt by attempt.")
    ] = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Print what a run's attempt said: live while it runs, and as it was kept afterwards.

    Example: penstock runs logs 01jd --follow
    """

    async def print_log(api: ApiSession) -> None:
        path = f"/runs/{await _full_id(api, run)}/logs"
        try:
            async with aclosing(api.text(path, attempt=attempt, follow=follow or None)) as texts:
                async for text in texts:
                    typer.echo(written(text), nl=False)
        except httpx.TransportError as error:
            message = f"the server's answer broke off ({type(error).__name__}); give the command again to go on"
            raise CommandError(message) from None

    with_session(data_dir, print_log)


@app.command()
def start(connection: Annotated[str, typer.Argument(help="NAMESPACE/NAME")], data_dir: DataDir = DATA_DIR) -> None:
    """Run a connection now; a running platform carries it out.

    Example: penstock runs start team-a/people
    """
    namespace, name = connection_name(connection)
    body: JsonValue = {"namespace": namespace, "name": name}
    typer.echo(with_session(data_dir, lambda api: api.post(StartedRun, "/runs", body)).id)


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
    """Make a run for each tick of a window that has made none, or one that reads the window again; behind what is due.

    Example: penstock runs backfill team-a/people --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z
    """
    namespace, name = connection_name(connection)
    body: JsonValue = {"namespace": namespace, "name": name, "from": start, "to": end, "streams": [*(stream or ())]}
    if again:
        typer.echo(with_session(data_dir, lambda api: api.post(StartedRun, "/runs/reread", body)).id)
        return
    runs = with_session(data_dir, lambda api: api.post(list[BackfilledRun], "/runs/backfill", body))
    for run in runs:
        typer.echo(f"{run.id}  {moment(run.scheduled_at)}")
    if not runs:
        typer.echo("every tick of the window has made a run", err=True)


@app.command()
def cancel(
    run: Annotated[list[str], typer.Argument(help="Ids of runs, or the beginnings of them.")],
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Cancel runs: each stops after its current batch, or is stopped soon; what is committed stays.

    Example: penstock runs cancel 01jd
    """

    async def cancel_all(api: ApiSession) -> list[CancelledRun]:
        ids = [await _full_id(api, word) for word in run]
        return [await api.post(CancelledRun, f"/runs/{run_id}/cancel") for run_id in ids]

    for cancelled in with_session(data_dir, cancel_all):
        typer.echo(cancelled.phase)
