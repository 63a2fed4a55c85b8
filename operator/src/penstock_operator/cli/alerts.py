"""`penstock alerts`: what drifted, what came empty, what was rejected; and how to accept it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from penstock_operator.cli.output import print_table
from penstock_operator.cli.session import DATA_DIR, DataDir, Session, session

app = typer.Typer(no_args_is_help=True, help="Alerts: list, ack.")


@app.command("list")
def list_alerts(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n")] = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Those that are resolved, with who accepted them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """List alerts, newest first: the open ones, unless asked otherwise."""
    rows = asyncio.run(_listed(data_dir, namespace, resolved="true" if resolved else None))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("alert", "connection", "stream", "class", "since", "message", *(["by"] if resolved else []))
    for row in rows:
        where = f"{row['namespace']}/{row['name']}"
        by = [row["acknowledged_by"] or "went back"] if resolved else []
        table.add_row(str(row["id"]), where, row["stream"], row["kind"], row["opened_at"][:19], row["message"], *by)
    print_table(table)


async def _listed(data_dir: Path, namespace: str | None, resolved: str | None) -> list[dict[str, Any]]:
    async with session(data_dir) as found:
        listed: list[dict[str, Any]] = await found.get("/alerts", namespace=namespace, resolved=resolved)
        return listed


@app.command()
def ack(
    alerts: Annotated[list[int], typer.Argument(help="Numbers of alerts, as `penstock alerts list` shows them.")],
    note: Annotated[str, typer.Option(help="Why, for whoever asks later.")] = "",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Accept what alerts tell: a frozen stream goes on with the change, a blocked one is read."""

    async def act(found: Session) -> None:
        for alert in alerts:
            row = await found.post(f"/alerts/{alert}/acknowledge", {"note": note})
            typer.echo(f"{alert}: {row['stream']}: {row['kind']}: accepted by {row['acknowledged_by']}")

    async def opened() -> None:
        async with session(data_dir) as found:
            await act(found)

    asyncio.run(opened())
