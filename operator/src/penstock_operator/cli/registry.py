"""`penstock registry`: the registry itself, where it was restored from a backup."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from penstock_operator.bronze.store import BronzeStore
from penstock_operator.cli.output import print_table
from penstock_operator.cli.session import DATA_DIR, CommandError, DataDir
from penstock_operator.embedded.platform import DataDirectory, backends
from penstock_operator.registry.database import Pool, create_pool
from penstock_operator.runs.registry_reconcile import Reconciled, ReconcileError, reconcile_registry
from penstock_operator.settings import database_url, s3_settings

app = typer.Typer(no_args_is_help=True, help="The registry: reconcile it with the bucket after a restore.")


@app.command()
def reconcile(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Bring a registry that was restored from a backup forward, by the commit manifests in the bucket.

    Stop the controller first. With PENSTOCK_DATABASE_URL it works on that registry and the bucket of PENSTOCK_S3_BUCKET,
    as in a pod of the release; else on a data directory. Doing it again changes nothing.
    """
    found = asyncio.run(_reconciled(data_dir, dry_run=dry_run))
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    if found:
        _print(found)
    else:
        typer.echo("the registry knows all that the bucket holds")


async def _reconciled(data_dir: Path, *, dry_run: bool) -> list[Reconciled]:
    async with _opened(data_dir) as (pool, store):
        try:
            return await reconcile_registry(pool, store, dry_run=dry_run)
        except ReconcileError as error:
            raise CommandError(str(error)) from None


@asynccontextmanager
async def _opened(data_dir: Path) -> AsyncIterator[tuple[Pool, BronzeStore]]:
    async with AsyncExitStack() as stack:
        if os.environ.get("PENSTOCK_DATABASE_URL"):
            url, s3 = database_url(), s3_settings()
        else:
            data = DataDirectory(data_dir)
            if not data.path.exists():
                message = f"there is no data directory {data_dir}; name it, or set PENSTOCK_DATABASE_URL"
                raise CommandError(message)
            data.lock()
            stack.callback(data.unlock)
            found = await stack.enter_async_context(backends(data))
            url, s3 = found.database_url, found.s3
        pool = create_pool(url, size=2)
        await pool.open(wait=True, timeout=30)
        stack.push_async_callback(pool.close)
        yield pool, BronzeStore(s3)


def _print(found: list[Reconciled]) -> None:
    table = Table("connection", "runs", "objects", "streams", "cancelled", "left to the collector", "deleted", "note")
    for each in found:
        counts = (each.runs, each.objects, each.streams, each.cancelled, each.leftovers, each.deleted)
        table.add_row(escape(f"{each.namespace}/{each.name}"), *map(str, counts), escape("; ".join(each.notes)))
    print_table(table)
