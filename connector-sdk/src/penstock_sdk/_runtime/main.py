"""The process: environment in, exit code out."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_sdk._runtime.assignment import Assignment
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.connector_loader import InstalledConnector, identity_of, non_secret_credentials
from penstock_sdk._runtime.json_logs import log_to_stderr, mask_printed_output
from penstock_sdk._runtime.masking import Mask
from penstock_sdk._runtime.parent_watch import exit_with_parent
from penstock_sdk._runtime.run import run_connector
from penstock_sdk.errors import DefectError

CREDENTIAL_PREFIX = "PENSTOCK_CREDENTIAL_"
log = logging.getLogger("penstock")


@dataclass(frozen=True)
class LaunchEnvironment:
    """What the launcher says in the environment."""

    run: str
    attempt: int
    connector: str
    api_url: str
    token_file: Path

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> LaunchEnvironment:
        """Return them, or say which one is missing."""
        names = ("RUN_ID", "ATTEMPT", "CONNECTOR", "API_URL", "TOKEN_FILE")
        missing = [f"PENSTOCK_{name}" for name in names if not environment.get(f"PENSTOCK_{name}")]
        if missing:
            message = f"{', '.join(missing)} is not set: this process is started by Penstock's launcher; `penstock up` runs a connector on one machine"
            raise DefectError(message)
        run, attempt, connector, url, token = (environment[f"PENSTOCK_{name}"] for name in names)
        if not attempt.isdecimal():
            raise DefectError(f"PENSTOCK_ATTEMPT is {attempt!r}, which is no number")
        return cls(run, int(attempt), connector, url, Path(token))

    def token(self) -> str:
        """Return the pod's own token."""
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            message = f"PENSTOCK_TOKEN_FILE: {error.strerror}: {self.token_file}"
            raise DefectError(message) from None


def pop_credentials() -> dict[str, str]:
    """Return the credentials, and remove them from the environment that child processes and dumps would show."""
    names = [name for name in os.environ if name.startswith(CREDENTIAL_PREFIX)]
    return {name.removeprefix(CREDENTIAL_PREFIX): os.environ.pop(name) for name in names}


def main() -> int:
    """Carry the attempt that the environment names."""
    exit_with_parent(os.environ)
    _tune_interpreter()
    credentials = pop_credentials()
    context: dict[str, Any] = {}
    log_to_stderr(context, Mask(list(credentials.values())))  # until the manifest says which of them are no secret
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
        )
        log_to_stderr(context, assignment.mask)
        mask_printed_output(assignment.mask)
        client = RunClient(launch.api_url, launch.token())
    except DefectError as error:  # no attempt can be reached without an identity and a token: the log has to say it
        log.error("%s: %s", error.error_class, error.message)  # noqa: TRY400 - the message says it all
        return error.exit_code
    return run_connector(assignment, client, _on_sigterm)


def _tune_interpreter() -> None:
    # Batches are trees of short-lived dicts: the default thresholds spend more on looking for cycles than on reading.
    gc.set_threshold(100_000, 50, 100)
    # Uploads and commits are many short turns beside a busy reader: with the default each waits 5 ms for its own.
    sys.setswitchinterval(0.0005)


def _on_sigterm(interrupt: Callable[[], None]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: interrupt())
