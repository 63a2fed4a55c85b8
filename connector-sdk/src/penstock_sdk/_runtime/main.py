"""The process of a connector: it reads its environment, runs one attempt, and ends with an exit code."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.assignment import Assignment
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.connector_loader import InstalledConnector, identity_of, non_secret_credentials
from penstock_sdk._runtime.credential_files import take_credentials
from penstock_sdk._runtime.json_logs import LogContext, log_to_stderr, mask_printed_output
from penstock_sdk._runtime.masking import Mask
from penstock_sdk._runtime.parent_watch import exit_with_parent
from penstock_sdk._runtime.run import run_connector
from penstock_sdk._runtime.source_trust import trust_source
from penstock_sdk.errors import DefectError

log = logging.getLogger("penstock")
REQUIRED_VARIABLES = (
    wire.RUN_ID_VARIABLE,
    wire.ATTEMPT_VARIABLE,
    wire.CONNECTOR_VARIABLE,
    wire.API_URL_VARIABLE,
    wire.TOKEN_FILE_VARIABLE,
)


@dataclass(frozen=True)
class LaunchEnvironment:
    """The environment variables that the launcher sets."""

    run: str
    attempt: int
    connector: str
    api_url: str
    token_file: Path
    ca_certificates: str = ""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> LaunchEnvironment:
        """Return the variables. Raises DefectError that names the missing ones."""
        missing = [name for name in REQUIRED_VARIABLES if not environment.get(name)]
        if missing:
            raise DefectError(
                f"{', '.join(missing)} is not set: Penstock's launcher starts this process and sets it;"
                " to run a connector on one machine, use `penstock up`"
            )
        run, attempt, connector, url, token = (environment[name] for name in REQUIRED_VARIABLES)
        if not attempt.isdecimal():
            raise DefectError(f"{wire.ATTEMPT_VARIABLE} is {attempt!r}, which is not a number")
        certificates = environment.get(wire.CA_CERTIFICATES_VARIABLE, "")
        return cls(run, int(attempt), connector, url, Path(token), certificates)

    def token(self) -> str:
        """Return the pod's own token."""
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            message = f"{wire.TOKEN_FILE_VARIABLE}: {error.strerror}: {self.token_file}"
            raise DefectError(message) from None


def run_attempt(credentials: dict[str, str], tell_secrets: Callable[[list[str]], None]) -> int:
    """Run the attempt that the environment names, and return the exit code. `tell_secrets` tells the parent what to mask."""
    exit_with_parent(os.environ)
    _tune_interpreter()
    context: LogContext = {}
    log_to_stderr(context, Mask(list(credentials.values())))  # the manifest is not read yet, so all are masked
    try:
        launch = LaunchEnvironment.read(os.environ)
        context.update(run=launch.run, attempt=launch.attempt)
        installed = InstalledConnector.find(launch.connector)
        manifest = installed.manifest()
        assignment = Assignment(
            launch.run,
            launch.attempt,
            identity_of(manifest),
            installed.load,
            credentials,
            non_secret_credentials(manifest),
            context,
            manifest,
        )
        assignment.mask.on_change = tell_secrets
        tell_secrets(assignment.mask.values)
        log_to_stderr(context, assignment.mask)
        mask_printed_output(assignment.mask)
        client = RunClient(launch.api_url, launch.token(), ca_certificates=launch.ca_certificates)
        trust_source(os.environ)  # after the client: it does not trust the source's CAs
    except DefectError as error:  # without an identity and a token the run API cannot be told
        log.error("%s: %s", error.error_class, error.message)  # noqa: TRY400 - a trace would add nothing
        return error.exit_code
    return run_connector(assignment, client, _on_sigterm)


def main() -> int:
    """Run the attempt in this process, without a parent that masks its output; the conformance suite watches it so."""
    return run_attempt(take_credentials(os.environ), lambda _: None)


def _tune_interpreter() -> None:
    # Batches are trees of short-lived dicts. With the default thresholds the collector would take longer than the read.
    gc.set_threshold(100_000, 50, 100)
    # Uploads and commits need the interpreter often and briefly beside a busy reader; by default each waits 5 ms for it.
    sys.setswitchinterval(0.0005)


def _on_sigterm(interrupt: Callable[[], None]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: interrupt())
