"""`penstock`: its commands, and how each ends: with an exit code and at most one line of error, never a traceback."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import httpx
import psycopg
import structlog
import typer
from botocore.exceptions import BotoCoreError, ClientError, SSLError
from psycopg_pool import PoolTimeout

from penstock_operator.cli import (
    alerts,
    audit,
    bronze,
    certificates,
    credentials,
    definition,
    init,
    listings,
    registry,
    runs,
    state,
    up,
)
from penstock_operator.cli.exit_codes import CommandError, ExitCode
from penstock_operator.cli.output import printable_block, say
from penstock_operator.cli.own_secrets import masked
from penstock_operator.cli.paths import existing_path
from penstock_operator.cli.signals import StopRequested
from penstock_operator.cli.usage import USAGE_ERRORS, say_usage
from penstock_operator.cli.validation import examined
from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded.documents import FolderError
from penstock_operator.registry.migrate import MigrationError
from penstock_operator.registry.migrate import migrate as apply_migrations
from penstock_operator.registry.roles import RoleError
from penstock_operator.settings import SettingsError, database_roles, database_url
from penstock_operator.tls import TlsError

TRACEBACK = "PENSTOCK_TRACEBACK"
EXPECTED = (EmbeddedError, FolderError, SettingsError, CommandError, MigrationError, RoleError, TlsError)
EXIT_CODES = """
Exit codes: 0 done; 1 something is wrong with what was looked at or run; 2 the command cannot be carried out as given;
70 Penstock itself is at fault; 128 and the signal's number after a signal.
"""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help is printed as it is: [/STREAM] is no tag
    help=f"Governed data connectors on Kubernetes, and on a laptop.\n\n{EXIT_CODES}",
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        typer.echo(f"penstock {version('penstock-operator')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Take the options of all commands."""


app.command()(up.up)
app.command()(init.init)


@app.command()
def validate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="connector.yaml, definitions, connections; or folders of them.",
            parser=existing_path,
            metavar="PATHS...",
        ),
    ],
) -> None:
    """Check files with the API server's own words; 1 if any is invalid.

    Example: penstock validate folder
    """
    files, found = examined(paths)
    for line in found:
        say(line)
    if not found:
        say(f"{len(files)} valid")
    raise typer.Exit(ExitCode.problem if found else ExitCode.ok)


app.command()(definition.definition)
app.command()(certificates.certificates)
for _group, _name in (
    (listings.connections_app, "connections"),
    (listings.definitions_app, "definitions"),
    (listings.streams_app, "streams"),
    (runs.app, "runs"),
    (bronze.app, "bronze"),
    (state.app, "state"),
    (alerts.app, "alerts"),
    (registry.app, "registry"),
    (credentials.app, "credentials"),
):
    app.add_typer(_group, name=_name)
app.command()(audit.audit)


@app.command()
def migrate() -> None:
    """Bring the registry's tables up to date; safe to run at any time, by anybody, at once.

    Roles that PENSTOCK_CONTROLLER_ROLE and PENSTOCK_SERVER_ROLE name get the rights that they need.
    """
    roles = database_roles()
    for name in asyncio.run(apply_migrations(database_url(), roles)):
        say(f"applied {name}")
    for role in (roles.controller, roles.server):
        if role:
            say(f"granted rights to {role}")
    say("the registry is up to date")


Port = Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")]


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "0.0.0.0",  # noqa: S104 - a container's own network
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the run API, for pods of runs.")] = 8080,
    read_port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the read API, for people.")] = 8084,
) -> None:
    """Serve the run API and the read API in a cluster, each on its own port."""
    from penstock_operator.cli.cluster import serve as serve_cluster

    asyncio.run(serve_cluster(host, port, read_port))


@app.command()
def operate(health_port: Port = 8081) -> None:
    """Run the controller in a cluster; ends with an error when it loses the lead unasked, so that it is restarted."""
    from penstock_operator.cli.cluster import operate as operate_cluster

    if not asyncio.run(operate_cluster(health_port)):
        raise typer.Exit(ExitCode.problem)


@app.command()
def egress(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "0.0.0.0",  # noqa: S104 - a container's own network
    port: Port = 8082,
    health_port: Port = 8083,
) -> None:
    """Serve the egress gateway in a cluster: run pods reach the hosts of their manifests through it."""
    from penstock_operator.cli.egress_gateway import serve_egress

    asyncio.run(serve_egress(host, port, health_port))


def main() -> None:
    """Run the command that the command line gives, and end the process."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123 - a shell's >&- leaves none
    sys.stderr = sys.stderr or sys.stdout
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _printable_values,
            # Rich's tracebacks would show local variables, which hold secrets.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
            _masked_line,
        ],
    )
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # the reader of a pipe may end; a full disk loses the output
            code = _failed(error)
    sys.exit(code)


def _masked_line(_logger: Any, _method: str, line: Any) -> str:
    """Mask the platform's own credentials, also in tracebacks."""
    return masked(str(line))


def _printable_values(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters in quoted values, so that they do not move the terminal's cursor."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = printable_block(value)
    return event


def command_tree() -> Any:
    """Return all commands; an example is not wrapped, and a command's first line is not cut in a group's help."""
    root = typer.main.get_command(app)
    for command in _with_subcommands(root):
        text = command.help or ""
        command.short_help = text.partition("\n\n")[0]
        command.help = text.replace("Example: ", "\b\nExample: ")
    return root


def _with_subcommands(command: Any) -> Iterator[Any]:
    yield command
    for subcommand in getattr(command, "commands", {}).values():
        yield from _with_subcommands(subcommand)


def run(arguments: list[str]) -> int:
    """Carry out a command line and return its exit code; an error is one line on stderr."""
    try:
        ended = command_tree().main(arguments, "penstock", standalone_mode=False)
    except USAGE_ERRORS as error:
        say_usage(error)
        return ExitCode.usage
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except StopRequested as told:
        return told.exit_code
    except BrokenPipeError:
        return ExitCode.problem
    except Exception as error:  # noqa: BLE001 - the last place where a traceback can be kept from a user
        return _failed(error)
    return ended if isinstance(ended, int) else ExitCode.ok


def _failed(error: Exception) -> int:
    """Print an error in one line. For an unexpected error, which is a defect, an environment variable shows the traceback."""
    if os.environ.get(TRACEBACK):
        sys.stderr.write(masked("".join(traceback.format_exception(error))))
    first = _first(error)
    words = _words(first)
    if words is not None:
        say(masked(f"error: {words}"))
        return ExitCode.usage
    say(masked(f"error: a defect of Penstock: {type(first).__name__}: {first} ({TRACEBACK}=1 shows where)"))
    return ExitCode.defect


def _first(error: BaseException) -> BaseException:
    """Return the error itself, or the first of a group's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str | None:
    """Return the message for an error whose cause is outside of Penstock; None for any other error."""
    if isinstance(error, EXPECTED):
        return str(error)
    if isinstance(error, (psycopg.OperationalError, PoolTimeout)):
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return f"the registry does not answer: {said}{_postgres_remedy(said)}"
    if isinstance(error, SSLError):
        return f"the bucket's certificate is not accepted: {error}; set s3.caSecret (PENSTOCK_S3_CA_FILE) to its CA"
    if isinstance(error, (BotoCoreError, ClientError)):
        return f"the bucket does not answer as it should: {error}"
    return _words_of_others(error)


def _postgres_remedy(said: str) -> str:
    """Return what to do about a failed verification of Postgres; empty for another failure."""
    if not re.search("ssl|certificate", said, re.IGNORECASE):
        return ""
    return (
        "; a Postgres that is not on loopback is verified (sslmode=verify-full): set postgres.caSecret"
        " (PENSTOCK_POSTGRES_CA_FILE) to the CA of its certificate, or another sslmode in its URL"
    )


def _words_of_others(error: BaseException) -> str | None:
    if isinstance(error, (httpx.HTTPError, httpx.InvalidURL)):
        return f"the server does not answer as it should: {error or type(error).__name__}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}"
    if type(error).__module__.startswith("kubernetes"):
        return f"Kubernetes: {' '.join(str(error).split())}"
    return None
