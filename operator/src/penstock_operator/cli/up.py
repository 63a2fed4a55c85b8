"""`penstock up`: the whole platform on this machine, until every connection has run once or until it is stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock_operator.cli.api_session import DATA_DIR, DataDir
from penstock_operator.cli.exit_codes import ExitCode
from penstock_operator.cli.output import ListingColumn, Output, OutputOption, print_json, print_rows, say
from penstock_operator.cli.paths import existing_folder
from penstock_operator.cli.run_reporter import PlainLines, report_to
from penstock_operator.cli.signals import run_until_stopped
from penstock_operator.embedded.platform import DataDirectory, platform
from penstock_operator.embedded.runner import RunResult, as_document, run_on, run_once

COLUMNS: tuple[ListingColumn[RunResult], ...] = (
    ListingColumn("connection", lambda result: f"{result.namespace}/{result.name}"),
    ListingColumn("definition", lambda result: result.definition),
    ListingColumn("phase", lambda result: result.phase),
    ListingColumn("attempt", lambda result: result.attempt),
    ListingColumn("records", lambda result: result.records),
    ListingColumn("bytes", lambda result: result.bytes),
    ListingColumn("objects", lambda result: len(result.objects)),
    ListingColumn("message", lambda result: result.error["message"] if result.error else result.note),
)


def up(
    directory: Annotated[
        Path,
        typer.Argument(
            help="Folder of definitions, connections and Secrets as YAML.", parser=existing_folder, metavar="DIRECTORY"
        ),
    ],
    data_dir: DataDir = DATA_DIR,
    once: Annotated[
        bool, typer.Option("--once", help="Run each connection once, then end; 0 only if all succeeded.")
    ] = False,
    output: OutputOption = Output.table,
) -> None:
    """Bring the whole platform up on this machine, without Kubernetes.

    Example: penstock up folder --once -o json
    """
    results = asyncio.run(run_until_stopped(_up(directory, DataDirectory(data_dir), once=once)))
    if results is None:
        return
    if output is Output.json:
        print_json(as_document(results))
    else:
        print_rows(results, COLUMNS, output)
    succeeded = all(result.phase == "succeeded" for result in results)
    raise typer.Exit(ExitCode.ok if succeeded else ExitCode.problem)


async def _up(directory: Path, data: DataDirectory, *, once: bool) -> list[RunResult] | None:
    async with platform(directory, data) as running:
        say(f"penstock is up: {running.api_url} (data in {data.path})")
        console = Console(stderr=True)
        if once:
            with report_to(console) as report:
                return await run_once(running, report)
        await run_on(running, PlainLines(console))
    return None
