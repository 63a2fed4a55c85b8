"""`penstock alerts`: what drifted, what came empty, what was rejected; and how to accept it."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock_operator.cli.api_session import DATA_DIR, ApiSession, DataDir, with_fields, with_session
from penstock_operator.cli.output import ListingColumn, Output, OutputOption, moment, print_rows, printable

app = typer.Typer(no_args_is_help=True, help="Alerts: list, ack.")


COLUMNS = (
    ListingColumn("alert", lambda row: str(row["id"])),
    ListingColumn("connection", lambda row: f"{row['namespace']}/{row['name']}"),
    ListingColumn("stream", lambda row: row["stream"]),
    ListingColumn("class", lambda row: row["kind"]),
    ListingColumn("since", lambda row: moment(row["opened_at"])),
    ListingColumn("message", lambda row: row["message"]),
)
BY = ListingColumn("by", lambda row: row["acknowledged_by"] or "went back")


@app.command("list")
def list_alerts(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="One namespace; without it, all.")] = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Those that are resolved, with who accepted them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --output json.", hidden=True)] = False,
    output: OutputOption = Output.table,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """List alerts, newest first: the open ones, unless asked otherwise.

    Example: penstock alerts list --namespace team-a -o json
    """
    which = "true" if resolved else None
    rows = with_session(data_dir, lambda found: found.get("/alerts", namespace=namespace, resolved=which))
    print_rows(rows, (*COLUMNS, BY) if resolved else COLUMNS, Output.json if as_json else output)


@app.command()
def ack(
    alerts: Annotated[list[int], typer.Argument(help="Numbers of alerts, as `penstock alerts list` shows them.")],
    note: Annotated[str, typer.Option(help="Why, for whoever asks later.")] = "",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Accept what alerts tell: a frozen stream goes on with the change, a blocked one is read.

    Example: penstock alerts ack 12 --note "the column was renamed"
    """

    async def act(found: ApiSession) -> None:
        for alert in alerts:
            path = f"/alerts/{alert}/acknowledge"
            row = with_fields(await found.post(path, {"note": note}), path, "stream", "kind", "acknowledged_by")
            typer.echo(printable(f"{alert}: {row['stream']}: {row['kind']}: accepted by {row['acknowledged_by']}"))

    with_session(data_dir, act)
