"""`penstock registry`: the registry itself, where it was restored from a backup."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from penstock_operator.bronze.store import BronzeStore
from penstock_operator.cli.api_session import DATA_DIR, DataDir
from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.cli.output import ListingColumn, Output, OutputOption, print_rows
from penstock_operator.embedded.platform import DataDirectory, backends
from penstock_operator.registry.database import Pool, create_pool
from penstock_operator.restore.reconcile import ReconcileError, ReconcileResult, reconcile_registry
from penstock_operator.settings import database_url, s3_settings

app = typer.Typer(no_args_is_help=True, help="The registry: reconcile it with the bucket after a restore.")

COLUMNS: tuple[ListingColumn[ReconcileResult], ...] = (
    ListingColumn("connection", lambda result: f"{result.namespace}/{result.name}"),
    ListingColumn("runs", lambda result: result.runs),
    ListingColumn("objects", lambda result: result.objects),
    ListingColumn("streams", lambda result: result.streams),
    ListingColumn("cancelled", lambda result: result.cancelled),
    ListingColumn("left to the collector", lambda result: result.leftovers),
    ListingColumn("deleted", lambda result: result.deleted),
    ListingColumn("note", lambda result: "; ".join(result.notes)),
)


@app.command()
def reconcile(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --output json.", hidden=True)] = False,
    output: OutputOption = Output.table,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Bring a registry that was restored from a backup forward, by the commit manifests in the bucket.

    Stop the controller first. With PENSTOCK_DATABASE_URL it works on that registry and the bucket of PENSTOCK_S3_BUCKET,
    as in a pod of the release; else on a data directory. Doing it again changes nothing.

    Example: penstock registry reconcile --dry-run
    """
    results = asyncio.run(_reconciled(data_dir, dry_run=dry_run))
    chosen = Output.json if as_json else output
    if results or chosen is not Output.table:
        print_rows(results, COLUMNS, chosen)
    else:
        typer.echo("the registry knows all that the bucket holds")
    left = sum(result.left_alone for result in results)
    if left:
        message = (
            f"{left} connections were left as they are; their notes say what to do. Do that before a controller starts"
        )
        raise CommandError(message)


async def _reconciled(data_dir: Path, *, dry_run: bool) -> list[ReconcileResult]:
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
            data.check()
            data.lock()
            stack.callback(data.unlock)
            found = await stack.enter_async_context(backends(data))
            url, s3 = found.database_url, found.s3
        pool = create_pool(url, size=2)
        await pool.open(wait=True, timeout=30)
        stack.push_async_callback(pool.close)
        yield pool, BronzeStore(s3)
