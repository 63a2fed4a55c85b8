"""`penstock up`: the whole platform on this machine, until every connection has run once or until it is stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock_operator.cli.errors import ExitCode
from penstock_operator.cli.output import Column, Output, OutputOption, print_json, print_rows, say
from penstock_operator.cli.paths import existing_folder
from penstock_operator.cli.progress import PlainLines, report_to
from penstock_operator.cli.session import DATA_DIR, DataDir
from penstock_operator.cli.signals import until_told
from penstock_operator.embedded.once import Result, as_document, run_on, run_once
from penstock_operator.embedded.platform import DataDirectory, platform

COLUMNS = (
    Column("connection", lambda row: f"{row['namespace']}/{row['name']}"),
    Column("definition", lambda row: row["definition"]),
    Column("phase", lambda row: row["phase"]),
    Column("attempt", lambda row: row["attempt"]),
    Column("records", lambda row: row["records"]),
    Column("bytes", lambda row: row["bytes"]),
    Column("objects", lambda row: len(row["objects"])),
    Column("message", lambda row: row["error"]["message"] if row["error"] else row["note"]),
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
    results = asyncio.run(until_told(_up(directory, DataDirectory(data_dir), once=once)))
    if results is None:
        return
    document = as_document(results)
    if output is Output.json:
        print_json(document)
    else:
        print_rows(document["connections"], COLUMNS, output)
    succeeded = all(each.phase == "succeeded" for each in results)
    raise typer.Exit(ExitCode.ok if succeeded else ExitCode.problem)


async def _up(directory: Path, data: DataDirectory, *, once: bool) -> list[Result] | None:
    async with platform(directory, data) as running:
        say(f"penstock is up: {running.api_url} (data in {data.path})")
        console = Console(stderr=True)
        if once:
            with report_to(console) as report:
                return await run_once(running, report)
        await run_on(running, PlainLines(console))
    return None
