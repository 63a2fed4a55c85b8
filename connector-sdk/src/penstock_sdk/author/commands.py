"""The commands of `penstock-connector`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
import yaml

from penstock_sdk._contract_checks import checked_streams
from penstock_sdk.author import conformance, openapi_schema, project, schema_inference, session
from penstock_sdk.author.command_errors import (
    DEFECT,
    USAGE,
    USAGE_ERRORS,
    defect_line,
    printable,
    system_line,
    usage_line,
)
from penstock_sdk.author.local_read import DuckDbFile, JsonLinesOutput, planned_partitions, read_stream
from penstock_sdk.contract import Record
from penstock_sdk.errors import ConnectorError
from penstock_sdk.manifest import manifest_problems
from penstock_sdk.scaffold import ScaffoldError, create
from penstock_sdk.testing import TARGET_FILE, TargetError, find_connector

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Write a connector: make a project, look at its source, read from it, test it, package it.",
)
File = Annotated[Path, typer.Option("--file", "-f", help="The connection that commands use.")]
DEFAULT_FILE = Path(TARGET_FILE)
NEW_HELP = """Make a project that passes its own tests at once.

\b
Templates:
    rest   pages of an HTTP API, by the time of their last change
    sql    tables of a database, by key or by the time of their last change
    files  CSV files in a folder that a web server lists; each version is read once
"""
NEW_EXAMPLES = """\b
Examples:
    penstock-connector new orders
    penstock-connector new warehouse --template sql --title 'Warehouse: EU'
    penstock-connector new exports --template files --directory exports
"""


def _version(asked: bool) -> None:  # noqa: FBT001 - typer gives a flag's value
    if asked:
        typer.echo(f"penstock-connector {metadata.version('penstock-sdk')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Write a connector: make a project, look at its source, read from it, test it, package it."""
    del version


@app.command(help=NEW_HELP, epilog=NEW_EXAMPLES)
def new(
    name: Annotated[str, typer.Argument(help="The source's name, such as 'orders'.")],
    template: Annotated[
        str, typer.Option("--template", "--method", help="What the project reads: rest, sql or files.")
    ] = "rest",
    directory: Annotated[Path | None, typer.Option(help="Where; NAME-rest, NAME-sql or NAME-file by default.")] = None,
    title: Annotated[str | None, typer.Option(help="The source's name for people, such as 'Orders: EU'.")] = None,
) -> None:
    """Make a project that passes its own tests at once."""
    place = create(name, template, directory, title)
    typer.echo(
        f"made {printable(place)}; next:\n\n    cd {shlex.quote(str(place))}\n    pip install -e '.[dev]'\n    penstock-connector test"
    )


@app.command()
def spec(file: File = DEFAULT_FILE) -> None:
    """Print the manifest, and its problems."""
    manifest = find_connector(session.declared_connector(file)).manifest()
    typer.echo(yaml.safe_dump(manifest, sort_keys=False, width=120), nl=False)
    for problem in manifest_problems(manifest):
        typer.echo(printable(f"connector.yaml: {problem}"), err=True)
    if manifest_problems(manifest):
        raise typer.Exit(1)


@app.command()
def check(file: File = DEFAULT_FILE) -> None:
    """Authenticate with the source, check its health, and refuse streams whose cursor can lose records."""
    output = sys.stdout  # what the connector prints goes to standard error
    with session.opened(file) as (connector, _target):
        connector.health()
        typer.echo("the source accepts the connection", file=output)
        streams = checked_streams(connector.discover())
        unsafe = project.unsafe_streams(streams)
    for line in project.pii_notes(streams):
        typer.echo(printable(line), err=True)
    unavailable = [
        f"stream {stream.name!r} is unavailable: {stream.unavailable.message}"
        for stream in streams
        if stream.unavailable
    ]
    for problem in (*unavailable, *unsafe):
        typer.echo(printable(problem), err=True)
    if unavailable or unsafe:
        raise typer.Exit(1)


LOGIN_HELP = """Log in as a person, for a method of the manifest with oauth2 and the flow authorizationCode or deviceCode, and print a
Secret with the refresh token.

Standard output has the Secret only; what to do is on standard error. The client's credentials are those of the test file, where
${NAME} stands for an environment variable; its source is not started.
"""


@app.command(help=LOGIN_HELP)
def login(
    file: File = DEFAULT_FILE,
    method: Annotated[str | None, typer.Option(help="The method, if several need a login.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Listen on this port for the redirect; a free one by default.")
    ] = None,
    redirect_url: Annotated[
        str | None, typer.Option(help="The redirect URL that the provider has for the client.")
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="No browser on this machine: paste the redirected URL.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="The name of the Secret; the connector's by default.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the Secret to this file, readable by you only.")] = None,
) -> None:
    """Log in as a person, and print a Secret with the refresh token."""
    from penstock_sdk.author.login import LoginOptions, log_in, private_output

    options = LoginOptions(method, port, redirect_url, not no_browser, name)
    with private_output(output) as write:
        write(log_in(file, options))
    if output is not None:
        typer.echo(printable(f"wrote {output}; next: kubectl apply -f {shlex.quote(str(output))}"), err=True)


@app.command()
def discover(
    file: File = DEFAULT_FILE, as_json: Annotated[bool, typer.Option("--json", help="Whole, with schemas.")] = False
) -> None:
    """List the streams that the source offers."""
    with session.opened(file) as (connector, _target):
        streams = checked_streams(connector.discover())
    typer.echo(project.streams_as_json(streams) if as_json else project.streams_as_text(streams))


@app.command()
def partitions(
    stream: Annotated[str, typer.Argument(help="A stream's name, as discover lists it.")],
    file: File = DEFAULT_FILE,
    since: Annotated[datetime | None, typer.Option(help="The earliest time that is wanted (UTC).")] = None,
) -> None:
    """List the partitions in which a stream would be read, with their bounds."""
    with session.opened(file) as (connector, _target):
        planned = planned_partitions(connector, stream, since=since)
    for partition in planned:
        typer.echo(f"{printable(partition.id)}\t{json.dumps(partition.bounds)}")
    if not planned:
        typer.echo(f"{stream} has no partitions and is read as a whole", err=True)


@app.command()
def read(
    stream: Annotated[str, typer.Argument(help="A stream's name, as discover lists it.")],
    file: File = DEFAULT_FILE,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many records.")] = None,
    since: Annotated[datetime | None, typer.Option(help="The earliest time that is wanted (UTC).")] = None,
    cursor: Annotated[str | None, typer.Option(help="Resume from a cursor: JSON, as a read prints it.")] = None,
    duckdb: Annotated[Path | None, typer.Option(help="Write a DuckDB file instead of JSON lines.")] = None,
    partition: Annotated[str | None, typer.Option(help="Only this partition, by its id.")] = None,
) -> None:
    """Read a stream to the terminal, one JSON object a line, or into a DuckDB file, and print the last cursor.

    A record of a delete batch has the field _op with the value "delete", and needs only its key.
    """
    target = DuckDbFile(duckdb, stream) if duckdb else JsonLinesOutput(sys.stdout)
    with session.opened(file) as (connector, _target):
        done = read_stream(connector, stream, target, since=since, cursor=cursor, limit=limit, partition=partition)
    deletes = f", {done.deletes} of them deletes" if done.deletes else ""
    rejected = f"; {done.rejected} more were rejected" if done.rejected else ""
    typer.echo(f"{done.count} records{deletes}{rejected}; cursor {json.dumps(done.cursor)}", err=True)
    if duckdb:
        typer.echo(f"they are the table {stream!r} of {printable(duckdb)}", err=True)


@app.command("infer-schema")
def infer_schema(
    samples: Annotated[list[Path] | None, typer.Argument(help="JSON, JSON Lines, CSV or TSV files.")] = None,
    stream: Annotated[str | None, typer.Option(help="Instead of files: the stream from which to read samples.")] = None,
    file: File = DEFAULT_FILE,
    limit: Annotated[int, typer.Option(min=1, help="Read so many records of the stream.")] = 1000,
    openapi: Annotated[
        Path | None,
        typer.Option(help="An OpenAPI document as the source of the schema. Samples are then compared with it."),
    ] = None,
    schema_name: Annotated[str | None, typer.Option("--schema", help="The name of the schema in the document.")] = None,
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="With --openapi: keep so many levels of fields, and below them only the type."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="With --openapi: the path of a field that records lack; can be repeated.")
    ] = None,
    descriptions: Annotated[
        bool, typer.Option("--descriptions/--no-descriptions", help="With --openapi: keep the descriptions of fields.")
    ] = True,
) -> None:
    """Print the JSON Schema of samples, or of an OpenAPI document. Standard error names the fields that look like personal data.

    With --openapi, it ends with 1 if a sample does not fit the schema, and standard error says why.
    """
    if bool(openapi) != bool(schema_name):
        raise project.ProjectError("--openapi FILE and --schema NAME belong together")
    if (samples and stream) or not (samples or stream or openapi):
        raise project.ProjectError("name files with samples, or a stream with --stream, or a document with --openapi")
    found = list(read_samples(file, stream, limit) if stream else schema_inference.records_of(samples or []))
    if openapi and schema_name:
        extent = openapi_schema.Extent(depth=depth, without=without or (), descriptions=descriptions)
        schema, personal = openapi_schema.schema_of_openapi(openapi, schema_name, extent)
        differences = schema_inference.differences(schema, found)
    else:
        (schema, personal), differences = schema_inference.infer(found), []
    typer.echo(json.dumps(schema, indent=2, ensure_ascii=False))
    for path, kind in personal.items():
        typer.echo(printable(f"looks like personal data ({kind}): {path}"), err=True)
    for difference in differences:
        typer.echo(printable(difference), err=True)
    if differences:
        raise typer.Exit(1)


def read_samples(file: Path, stream: str, limit: int) -> list[Record]:
    """Return the first records of a stream."""
    target = schema_inference.Samples()
    with session.opened(file) as (connector, _target):
        read_stream(connector, stream, target, limit=limit)
    return target.records


@app.command("test")
def conform(
    file: File = DEFAULT_FILE,
    only: Annotated[list[str] | None, typer.Option("--only", help="The name of a check; can be repeated.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
) -> None:
    """Run the conformance suite: 0 conformant, 1 a check failed, 3 a check was not run."""
    raise typer.Exit(conformance.run(file, only or [], report, typer.echo))


@app.command()
def package(
    image: Annotated[str, typer.Option(help="The image's repository, such as registry.example/penstock-orders-rest.")],
    file: File = DEFAULT_FILE,
    base: Annotated[
        str | None, typer.Option(help="A base image instead of the Dockerfile's; name it by digest.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="The conformance report to which the definition is bound.")
    ] = None,
    stage: Annotated[
        str, typer.Option(help="preview, which no version range selects, certified, deprecated or withdrawn.")
    ] = "preview",
    push: Annotated[
        bool, typer.Option("--push", help="Push the image; otherwise it is written as an OCI archive.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The folder for the definition and the archive.")] = Path("dist"),
) -> None:
    """Build the image, and the ConnectorDefinition that names it by digest. The same environment gives the same digest."""
    from penstock_sdk.author.packaging import PackageOptions
    from penstock_sdk.author.packaging import package as make

    found = find_connector(session.declared_connector(file))
    made = make(found, file.absolute().parent, PackageOptions(image, base, stage, report, push, out))
    typer.echo(
        f"{made.image}\n{made.definition}\n{made.archive or 'pushed'}\n{len(made.packages)} packages in the image"
    )


@app.command()
def verify(
    definition: Annotated[Path, typer.Argument(help="The ConnectorDefinition that package wrote.")],
    report: Annotated[Path, typer.Option(help="The conformance report to which it is bound.")],
    archive: Annotated[
        Path | None, typer.Option(help="The image as an OCI archive: its layers are compared with the report.")
    ] = None,
) -> None:
    """Check by their bytes that report, definition and image belong together. Exit code 0: they do, 1: they do not."""
    from penstock_sdk.author.report_binding import verify as compare

    wrong = compare(report, definition, archive)
    for line in wrong:
        typer.echo(printable(line), err=True)
    if wrong:
        raise typer.Exit(1)
    typer.echo(
        "report, definition and image belong together"
        if archive
        else f"report and definition belong together; {UNSEEN}"
    )


UNSEEN = "the image was not checked: name its OCI archive with --archive"


@app.command()
def checks() -> None:
    """List the conformance checks: what each proves, and what to do if it fails."""
    typer.echo(conformance.listing())


def run() -> int:
    """Run a command, and return its exit code. An error prints one line that says what to do, and no traceback."""
    try:
        return int(app(standalone_mode=False) or 0)
    except typer.Exit as ended:
        return ended.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:  # noqa: BLE001 - an unexpected error prints a line too
        line, code = _ending(error)
        if line:
            typer.echo(line, err=True)
        return code


def _ending(error: BaseException) -> tuple[str, int]:
    """Return the line for an error, and the exit code."""
    if isinstance(error, USAGE_ERRORS):
        line = usage_line(error)
        return (f"error: {line}" if line else "", USAGE)
    if isinstance(error, TargetError | ScaffoldError | project.ProjectError):
        return f"error: {printable(error)}", USAGE
    if isinstance(error, ConnectorError):
        return f"{type(error).__name__}: {printable(error.message)}", error.exit_code
    if isinstance(error, OSError):
        return f"error: {system_line(error)}", USAGE
    return f"error: {defect_line(error)}", DEFECT
