"""`penstock alerts`: list alerts, and acknowledge them."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock_operator.api.models import AlertView
from penstock_operator.cli.api_session import DATA_DIR, ApiSession, DataDir, with_session
from penstock_operator.cli.output import ListingColumn, Output, OutputOption, moment, print_rows, printable

app = typer.Typer(no_args_is_help=True, help="Alerts: list, ack.")


COLUMNS: tuple[ListingColumn[AlertView], ...] = (
    ListingColumn("alert", lambda alert: str(alert.id)),
    ListingColumn("connection", lambda alert: f"{alert.namespace}/{alert.name}"),
    ListingColumn("stream", lambda alert: alert.stream),
    ListingColumn("class", lambda alert: alert.kind),
    ListingColumn("since", lambda alert: moment(alert.opened_at)),
    ListingColumn("message", lambda alert: alert.message),
)
BY: ListingColumn[AlertView] = ListingColumn("by", lambda alert: alert.acknowledged_by or "went back")


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
    alerts = with_session(data_dir, lambda api: api.listing(AlertView, "/alerts", namespace=namespace, resolved=which))
    print_rows(alerts, (*COLUMNS, BY) if resolved else COLUMNS, Output.json if as_json else output)


@app.command()
def ack(
    alerts: Annotated[list[int], typer.Argument(help="Numbers of alerts, as `penstock alerts list` shows them.")],
    note: Annotated[str, typer.Option(help="Why; the note stays with the alert.")] = "",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Accept the changes that alerts report: a frozen stream goes on with the change, a blocked one is read.

    Example: penstock alerts ack 12 --note "the column was renamed"
    """

    async def acknowledge(api: ApiSession) -> None:
        for number in alerts:
            alert = await api.post(AlertView, f"/alerts/{number}/acknowledge", {"note": note})
            typer.echo(printable(f"{number}: {alert.stream}: {alert.kind}: accepted by {alert.acknowledged_by}"))

    with_session(data_dir, acknowledge)
