"""The commands: a few lines each."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from enum import StrEnum
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated

import structlog
import typer
import yaml
from rich.console import Console
from rich.table import Table

from penstock_operator.cli import alerts, bronze, registry, runs, state
from penstock_operator.cli.output import print_table
from penstock_operator.cli.progress import PlainLines, report_to
from penstock_operator.cli.session import DATA_DIR, DataDir
from penstock_operator.cli.signals import Told, until_told
from penstock_operator.cli.validation import examined
from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded.documents import FolderError
from penstock_operator.embedded.once import Result, as_document, run_on, run_once
from penstock_operator.embedded.platform import DataDirectory, platform
from penstock_operator.registry.migrate import migrate as apply_migrations
from penstock_operator.resources.models import API_VERSION, GROUP
from penstock_operator.settings import SettingsError, database_url

NO_IMAGE = "not-pulled.invalid/connector@sha256:" + "0" * 64

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Governed data connectors on Kubernetes, and on a laptop.",
)
app.add_typer(runs.app, name="runs")
app.add_typer(bronze.app, name="bronze")
app.add_typer(state.app, name="state")
app.add_typer(alerts.app, name="alerts")
app.add_typer(registry.app, name="registry")
errors = Console(stderr=True)


class Output(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"


def _say(line: str) -> None:
    errors.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def up(
    directory: Annotated[
        Path,
        typer.Argument(help="Folder of definitions, connections and Secrets as YAML.", exists=True, file_okay=False),
    ],
    data_dir: DataDir = DATA_DIR,
    once: Annotated[
        bool, typer.Option("--once", help="Run each connection once, then end; 0 only if all succeeded.")
    ] = False,
    output: Annotated[Output, typer.Option(help="How --once prints its results.")] = Output.table,
) -> None:
    """Bring the whole platform up on this machine, without Kubernetes."""
    results = asyncio.run(until_told(_up(directory, DataDirectory(data_dir), once=once)))
    if results is None:
        return
    if output is Output.json:
        sys.stdout.write(json.dumps(as_document(results)) + "\n")
    else:
        _print_results(results)
    raise typer.Exit(0 if all(each.phase == "succeeded" for each in results) else 1)


async def _up(directory: Path, data: DataDirectory, *, once: bool) -> list[Result] | None:
    async with platform(directory, data) as running:
        _say(f"penstock is up: {running.api_url} (data in {data.path})")
        if once:
            with report_to(errors) as report:
                return await run_once(running, report)
        await run_on(running, PlainLines(errors))
    return None


def _print_results(results: list[Result]) -> None:
    table = Table("connection", "definition", "phase", "attempt", "records", "bytes", "objects", "message")
    for each in results:
        error = each.error["message"] if each.error else each.note
        numbers = (str(each.attempt), f"{each.records:,}", f"{each.bytes:,}", str(len(each.objects)))
        table.add_row(f"{each.namespace}/{each.name}", each.definition or "-", each.phase, *numbers, error)
    print_table(table)


@app.command()
def validate(
    paths: Annotated[
        list[Path], typer.Argument(help="connector.yaml, definitions, connections; or folders of them.", exists=True)
    ],
) -> None:
    """Check files with the API server's own words; 1 if any is invalid."""
    files, found = examined(paths)
    for line in found:
        _say(line)
    if not found:
        _say(f"{len(files)} valid")
    raise typer.Exit(1 if found else 0)


class _Quoting(yaml.SafeDumper):
    """Quotes `y` and `n`, which kubectl's YAML 1.1 reads as booleans and PyYAML does not."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if text in ("y", "Y", "n", "N") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Quoting.add_representer(str, _quoted)


@app.command()
def definition(
    artifact: Annotated[str, typer.Argument(help="An installed connector, such as postgres-sql.")],
    image: Annotated[str, typer.Option(help="The image by digest; on a laptop no image is pulled.")] = NO_IMAGE,
    stage: Annotated[
        str, typer.Option(help="certified, or preview, which no range selects, deprecated or withdrawn.")
    ] = "certified",
) -> None:
    """Print the ConnectorDefinition of an installed connector, ready for kubectl or a folder."""
    found = next(iter(metadata.entry_points(group="penstock.connectors", name=artifact)), None)
    if found is None:
        known = ", ".join(sorted(each.name for each in metadata.entry_points(group="penstock.connectors"))) or "none"
        message = f"no installed package offers {artifact}; there are: {known}"
        raise runs.CommandError(message)
    manifest = yaml.safe_load((resources.files(found.module.split(".")[0]) / "connector.yaml").read_text())
    name = f"{manifest['name']}-{manifest['method']}-{manifest['version']}"
    document = {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": "ConnectorDefinition",
        "metadata": {"name": name},
        "spec": {"image": image, "stage": stage, "manifest": manifest},
    }
    typer.echo(f"---\n{yaml.dump(document, Dumper=_Quoting, sort_keys=False, width=120)}", nl=False)


@app.command()
def migrate() -> None:
    """Bring the registry's tables up to date; safe to run at any time, by anybody, at once."""
    for name in asyncio.run(apply_migrations(database_url())):
        _say(f"applied {name}")
    _say("the registry is up to date")


@app.command()
def serve(host: str = "0.0.0.0", port: int = 8080) -> None:  # noqa: S104 - a container's own network
    """Serve the run API and the read API in a cluster."""
    from penstock_operator.cli.cluster import serve as serve_cluster

    asyncio.run(serve_cluster(host, port))


@app.command()
def operate(health_port: int = 8081) -> None:
    """Run the controller in a cluster; ends with an error when it loses the lead unasked, so that it is restarted."""
    from penstock_operator.cli.cluster import operate as operate_cluster

    if not asyncio.run(operate_cluster(health_port)):
        raise typer.Exit(1)


def main() -> None:
    """Run a command; an expected error is one line, without a traceback."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    try:
        app()
    except (EmbeddedError, FolderError, SettingsError, runs.CommandError) as error:
        _say(f"error: {error}")
        sys.exit(2)
    except Told as told:
        sys.exit(told.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
