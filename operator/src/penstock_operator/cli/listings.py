"""`penstock connections`, `definitions` and `streams`: list and show them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from penstock_operator.api.models import ConnectionView, DefinitionView, RunView, StreamView
from penstock_operator.cli.api_session import DATA_DIR, ApiSession, DataDir, with_session
from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.cli.names import connection_name, connection_path
from penstock_operator.cli.output import Cell, ListingColumn, Output, OutputOption, moment, print_rows
from penstock_operator.ids import RunId
from penstock_operator.resources.spelling import nearest_word
from penstock_operator.runs.attempt_store import ENDED_PHASES

NEWEST_RUNS = 1000
"""A connection whose newest run is older than these is listed without one."""
connections_app = typer.Typer(no_args_is_help=True, help="Connections: list, show.")
definitions_app = typer.Typer(no_args_is_help=True, help="Definitions of connectors: list.")
streams_app = typer.Typer(no_args_is_help=True, help="Streams of connections: list.")
Which = Annotated[str, typer.Argument(help="NAMESPACE/NAME")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="One namespace; without it, all.")]


class ConnectionListing(ConnectionView):
    """A connection with its phase, the age of its last success, its next run or retry, and the reason for a delay."""

    phase: str
    freshness: str
    next_retry_at: datetime | None
    reason: str
    last_run: RunId | None
    active: bool


class StreamListing(StreamView):
    """A stream of a connection."""

    connection: str
    state: str | None
    """`complete` if a read has left a cursor, `partial` if only checkpoints before one."""


CONNECTIONS: tuple[ListingColumn[ConnectionListing], ...] = (
    ListingColumn("connection", lambda connection: f"{connection.namespace}/{connection.name}"),
    ListingColumn("definition", lambda connection: connection.definition),
    ListingColumn("phase", lambda connection: connection.phase),
    ListingColumn("freshness", lambda connection: connection.freshness),
    ListingColumn("last success", lambda connection: moment(connection.last_success_at)),
    ListingColumn("next run", lambda connection: moment(connection.next_run_at)),
    ListingColumn("next retry", lambda connection: moment(connection.next_retry_at)),
    ListingColumn("reason", lambda connection: connection.reason),
)
DEFINITIONS: tuple[ListingColumn[DefinitionView], ...] = (
    ListingColumn("definition", lambda definition: definition.name),
    ListingColumn("connector", lambda definition: definition.connector),
    ListingColumn("method", lambda definition: definition.method),
    ListingColumn("version", lambda definition: definition.version),
    ListingColumn("stage", lambda definition: definition.stage),
)
STREAMS: tuple[ListingColumn[StreamListing], ...] = (
    ListingColumn("connection", lambda stream: stream.connection),
    ListingColumn("stream", lambda stream: stream.display_name),
    ListingColumn("mode", lambda stream: stream.mode),
    ListingColumn("state", lambda stream: stream.state),
    ListingColumn("generation", lambda stream: stream.generation),
    ListingColumn("schema version", lambda stream: stream.version),
    ListingColumn("last read", lambda stream: moment(stream.updated_at)),
    ListingColumn("records", lambda stream: stream.records),
)
FIELDS: tuple[ListingColumn[tuple[str, Cell]], ...] = (
    ListingColumn("field", lambda field: field[0]),
    ListingColumn("value", lambda field: field[1]),
)


def connection_listing(connection: ConnectionView, run: RunView | None, now: datetime) -> ConnectionListing:
    """Return a connection with the facts that follow from its newest run."""
    retry = run.next_attempt_at if run and run.phase == "pending" and run.attempt else None
    next_run_at = None if connection.suspended or not connection.ready else connection.next_run_at
    return ConnectionListing(
        **dict(connection.model_copy(update={"next_run_at": next_run_at})),
        phase=_phase(connection, run),
        freshness=_age(connection.last_success_at, now),
        next_retry_at=retry,
        reason=_reason(connection, run),
        last_run=run.id if run else None,
        active=run is not None and run.phase not in ENDED_PHASES,
    )


def _phase(connection: ConnectionView, run: RunView | None) -> str:
    if not connection.ready:
        return "stalled"
    if run and run.phase not in ENDED_PHASES:
        return "retrying" if run.phase == "pending" and run.attempt else run.phase
    if connection.suspended:
        return "suspended"
    return run.phase if run else "waiting"


def _reason(connection: ConnectionView, run: RunView | None) -> str:
    if not connection.ready:
        return connection.stalled_message or "it cannot be used; the conditions of its resource say why"
    if run is None:
        return connection.upstream_message
    waits = f"waits: {run.waits}" if run.waits else ""
    return "; ".join(filter(None, (run.reason, waits, run.message)))


def _age(value: datetime | None, now: datetime) -> str:
    """Return how long ago a time was, in the two largest units."""
    if value is None:
        return "never"
    seconds = max(0, int((now - value).total_seconds()))
    days, hours, minutes = seconds // 86400, seconds % 86400 // 3600, seconds % 3600 // 60
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{seconds % 60}s" if minutes else f"{seconds}s"


async def _connections(api: ApiSession, namespace: str | None) -> list[ConnectionListing]:
    connections = await api.listing(ConnectionView, "/connections", namespace=namespace)
    newest = dict[tuple[str, str], RunView]()
    async for run in api.pages(RunView, "/runs", most=NEWEST_RUNS, namespace=namespace):
        newest.setdefault((run.namespace, run.name), run)
    now = datetime.now(UTC)
    return [
        connection_listing(connection, newest.get((connection.namespace, connection.name)), now)
        for connection in connections
    ]


@connections_app.command("list")
def list_connections(
    namespace: Namespace = None, output: OutputOption = Output.table, data_dir: DataDir = DATA_DIR
) -> None:
    """List connections: phase, freshness, next run or retry, and the reason.

    Example: penstock connections list --namespace team-a -o json
    """
    print_rows(with_session(data_dir, lambda api: _connections(api, namespace)), CONNECTIONS, output)


@connections_app.command("show")
def show_connection(connection: Which, output: OutputOption = Output.table, data_dir: DataDir = DATA_DIR) -> None:
    """Show one connection: phase, freshness, next run or retry, and the reason.

    Example: penstock connections show team-a/people
    """
    namespace, name = connection_name(connection)

    async def show(api: ApiSession) -> ConnectionListing:
        connections = await api.listing(ConnectionView, "/connections", namespace=namespace)
        found = next((other for other in connections if other.name == name), None)
        if found is None:
            near = nearest_word(name, [other.name for other in connections])
            hint = f"; did you mean {namespace}/{near}?" if near else ";"
            raise CommandError(f"there is no connection {namespace}/{name}{hint} `penstock connections list` lists all")
        runs = await api.listing(RunView, "/runs", most=1, namespace=namespace, name=name)
        return connection_listing(found, runs[0] if runs else None, datetime.now(UTC))

    shown = with_session(data_dir, show)
    if output is not Output.table:
        print_rows([shown], CONNECTIONS, output)
        return
    fields = [(column.title, column.cell(shown)) for column in CONNECTIONS]
    print_rows([*fields, ("last run", shown.last_run)], FIELDS, output)


@definitions_app.command("list")
def list_definitions(output: OutputOption = Output.table, data_dir: DataDir = DATA_DIR) -> None:
    """List the definitions that connections can use.

    Example: penstock definitions list -o csv
    """
    print_rows(with_session(data_dir, lambda api: api.listing(DefinitionView, "/definitions")), DEFINITIONS, output)


@streams_app.command("list")
def list_streams(
    connection: Annotated[str | None, typer.Argument(help="NAMESPACE/NAME; without it, all connections.")] = None,
    namespace: Namespace = None,
    output: OutputOption = Output.table,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """List streams of a connection or of all: mode, state, generation, schema version, last read and committed records.

    Example: penstock streams list team-a/people
    """
    only = connection_name(connection) if connection else None

    async def list_all(api: ApiSession) -> list[StreamListing]:
        one_namespace = only[0] if only else namespace
        connections = await api.listing(ConnectionView, "/connections", namespace=one_namespace)
        asked = [found for found in connections if only is None or found.name == only[1]]
        if only and not asked:
            raise CommandError(f"there is no connection {'/'.join(only)}; `penstock connections list` lists all")
        return [stream for found in asked for stream in await _streams(api, f"{found.namespace}/{found.name}")]

    print_rows(with_session(data_dir, list_all), STREAMS, output)


async def _streams(api: ApiSession, connection: str) -> list[StreamListing]:
    return [
        StreamListing(
            **stream.model_dump(by_alias=True),
            connection=connection,
            state="complete" if stream.cursor else "partial" if stream.checkpoint else None,
        )
        async for stream in api.pages(StreamView, f"{connection_path(connection)}/streams")
    ]
