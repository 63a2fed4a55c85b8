"""`penstock audit`: list who did what, on which object, when, from where, and with which result."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock_operator.api.models import AuditEventView
from penstock_operator.audit.events import Action, Result
from penstock_operator.cli.api_session import DATA_DIR, DataDir, with_session
from penstock_operator.cli.output import ListingColumn, Output, OutputOption, moment, print_rows

COLUMNS: tuple[ListingColumn[AuditEventView], ...] = (
    ListingColumn("time", lambda event: moment(event.occurred_at)),
    ListingColumn("actor", lambda event: event.actor or event.actor_kind),
    ListingColumn("from", lambda event: event.address),
    ListingColumn("action", lambda event: event.action),
    ListingColumn("object", lambda event: event.object),
    ListingColumn("result", lambda event: event.result),
    ListingColumn("events", lambda event: event.events),
    ListingColumn("reason", lambda event: event.reason),
)


def audit(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="One namespace; without it, all.")] = None,
    actor: Annotated[str | None, typer.Option(help="Events of this person, pod or `controller`.")] = None,
    action: Annotated[Action | None, typer.Option(help="Events of this action.")] = None,
    result: Annotated[Result | None, typer.Option(help="Events with this result.")] = None,
    since: Annotated[str | None, typer.Option(help="Events of this time or later, as 2026-06-01T00:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Events before this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many events.")] = 50,
    output: OutputOption = Output.table,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """List the events of the audit, newest first.

    Example: penstock audit --namespace team-a --result refused -o csv
    """
    events = with_session(
        data_dir,
        lambda api: api.listing(
            AuditEventView,
            "/audit",
            most=limit,
            namespace=namespace,
            actor=actor,
            action=action.value if action else None,
            result=result,
            since=since,
            until=until,
        ),
    )
    print_rows(events, COLUMNS, output)
