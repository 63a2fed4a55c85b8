"""`penstock connections`, `definitions` and `streams`: what there is, how fresh it is, and what comes next."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from penstock_operator.cli.api_session import DATA_DIR, ApiSession, DataDir, with_session
from penstock_operator.cli.exit_codes import CommandError, understood
from penstock_operator.cli.names import connection_name, connection_path
from penstock_operator.cli.output import ListingColumn, Output, OutputOption, moment, print_rows
from penstock_operator.resources.spelling import nearest_word

Row = dict[str, Any]
NEWEST_RUNS = 1000
connections_app = typer.Typer(no_args_is_help=True, help="Connections: list, show.")
definitions_app = typer.Typer(no_args_is_help=True, help="Definitions of connectors: list.")
streams_app = typer.Typer(no_args_is_help=True, help="Streams of connections: list.")
Which = Annotated[str, typer.Argument(help="NAMESPACE/NAME")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="One namespace; without it, all.")]

CONNECTIONS = (
    ListingColumn("connection", lambda row: f"{row['namespace']}/{row['name']}"),
    ListingColumn("definition", lambda row: row["definition"]),
    ListingColumn("phase", lambda row: row["phase"]),
    ListingColumn("freshness", lambda row: row["freshness"]),
    ListingColumn("last success", lambda row: moment(row["last_success_at"])),
    ListingColumn("next run", lambda row: moment(row["next_run_at"])),
    ListingColumn("next retry", lambda row: moment(row["next_retry_at"])),
    ListingColumn("reason", lambda row: row["reason"]),
)
DEFINITIONS = (
    ListingColumn("definition", lambda row: row["name"]),
    ListingColumn("connector", lambda row: row["connector"]),
    ListingColumn("method", lambda row: row["method"]),
    ListingColumn("version", lambda row: row["version"]),
    ListingColumn("stage", lambda row: row["stage"]),
)
STREAMS = (
    ListingColumn("connection", lambda row: row["connection"]),
    ListingColumn("stream", lambda row: row["display_name"]),
    ListingColumn("mode", lambda row: row["mode"]),
    ListingColumn("state", lambda row: row["state"]),
    ListingColumn("generation", lambda row: row["generation"]),
    ListingColumn("schema version", lambda row: row["version"]),
    ListingColumn("last read", lambda row: moment(row["updated_at"])),
    ListingColumn("records", lambda row: row["records"]),
)


def standing(row: Row, run: Row | None, now: datetime) -> Row:
    """Return a connection with its phase, how old its last success is, when it goes on, and why not sooner."""
    active = run is not None and run["phase"] in ("pending", "running")
    retry = run["next_attempt_at"] if run and run["phase"] == "pending" and run["attempt"] else None
    return {
        **row,
        "phase": _phase(row, run),
        "freshness": _age(row["last_success_at"], now),
        "next_run_at": None if row["suspended"] or not row["ready"] else row["next_run_at"],
        "next_retry_at": retry,
        "reason": _reason(row, run),
        "last_run": run["id"] if run else None,
        "active": active,
    }


def _phase(row: Row, run: Row | None) -> str:
    if not row["ready"]:
        return "stalled"
    if run and run["phase"] in ("pending", "running"):
        return "retrying" if run["phase"] == "pending" and run["attempt"] else str(run["phase"])
    if row["suspended"]:
        return "suspended"
    return str(run["phase"]) if run else "waiting"


def _reason(row: Row, run: Row | None) -> str:
    if not row["ready"]:
        return str(row.get("stalled_message") or "it cannot be used; the conditions of its resource say why")
    if run is None:
        return str(row.get("upstream_message") or "")
    waits = f"waits: {run['waits']}" if run.get("waits") else ""
    return "; ".join(filter(None, (run.get("reason") or "", waits, run.get("message") or "")))


def _age(value: str | None, now: datetime) -> str:
    """Return how long ago a moment of the API's was, in the two largest units."""
    if not value:
        return "never"
    seconds = max(0, int((now - datetime.fromisoformat(value)).total_seconds()))
    days, hours, minutes = seconds // 86400, seconds % 86400 // 3600, seconds % 3600 // 60
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{seconds % 60}s" if minutes else f"{seconds}s"


async def _standings(found: ApiSession, namespace: str | None) -> list[Row]:
    rows = await found.get("/connections", namespace=namespace)
    runs = await found.get("/runs", namespace=namespace, limit=NEWEST_RUNS)
    with understood():
        newest = dict[tuple[str, str], Row]()
        for run in runs:
            newest.setdefault((run["namespace"], run["name"]), run)
        now = datetime.now(UTC)
        return [standing(row, newest.get((row["namespace"], row["name"])), now) for row in rows]


@connections_app.command("list")
def list_connections(
    namespace: Namespace = None, output: OutputOption = Output.table, data_dir: DataDir = DATA_DIR
) -> None:
    """List connections: phase, freshness, next run or retry, and the reason.

    Example: penstock connections list --namespace team-a -o json
    """
    print_rows(with_session(data_dir, lambda found: _standings(found, namespace)), CONNECTIONS, output)


@connections_app.command("show")
def show_connection(connection: Which, output: OutputOption = Output.table, data_dir: DataDir = DATA_DIR) -> None:
    """Show one connection: phase, freshness, next run or retry, and the reason.

    Example: penstock connections show team-a/people
    """
    namespace, name = connection_name(connection)

    async def act(found: ApiSession) -> Row:
        rows = await found.get("/connections", namespace=namespace)
        with understood():
            row = next((row for row in rows if row["name"] == name), None)
        if row is None:
            near = nearest_word(name, [str(each.get("name")) for each in rows])
            hint = f"; did you mean {namespace}/{near}?" if near else ";"
            raise CommandError(f"there is no connection {namespace}/{name}{hint} `penstock connections list` lists all")
        runs = await found.get("/runs", namespace=namespace, name=name, limit=1)
        with understood():
            return standing(row, runs[0] if runs else None, datetime.now(UTC))

    row = with_session(data_dir, act)
    if output is not Output.table:
        print_rows([row], CONNECTIONS, output)
        return
    with understood():
        fields = [{"field": column.title, "value": column.cell(row)} for column in CONNECTIONS]
        fields.append({"field": "last run", "value": row["last_run"]})
    print_rows(
        fields,
        (ListingColumn("field", lambda each: each["field"]), ListingColumn("value", lambda each: each["value"])),
        output,
    )


@definitions_app.command("list")
def list_definitions(output: OutputOption = Output.table, data_dir: DataDir = DATA_DIR) -> None:
    """List the definitions that connections can use.

    Example: penstock definitions list -o csv
    """
    print_rows(with_session(data_dir, lambda found: found.get("/definitions")), DEFINITIONS, output)


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

    async def act(found: ApiSession) -> list[Row]:
        rows = await found.get("/connections", namespace=only[0] if only else namespace)
        with understood():
            asked = [row for row in rows if only is None or row["name"] == only[1]]
        if only and not asked:
            raise CommandError(f"there is no connection {'/'.join(only)}; `penstock connections list` lists all")
        return [stream for row in asked for stream in await _streams(found, row)]

    print_rows(with_session(data_dir, act), STREAMS, output)


async def _streams(found: ApiSession, connection: Row) -> list[Row]:
    with understood():
        namespace, name = connection["namespace"], connection["name"]
    which = f"{namespace}/{name}"
    streams = await found.get(f"{connection_path(which)}/streams")
    objects = await found.get("/objects", namespace=namespace, name=name)
    with understood():
        modes = {stream["name"]: stream["mode"] for stream in connection["spec"].get("streams") or ()}
        records = Counter[str]()
        for each in objects:
            records[each["stream"]] += each["records"]
        return [
            {
                **stream,
                "connection": which,
                "mode": modes.get(stream["display_name"]),
                "state": "complete" if stream["cursor"] else "partial" if stream["checkpoint"] else None,
                "records": records[stream["stream"]],
            }
            for stream in streams
        ]
