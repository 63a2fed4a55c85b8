"""The process: environment in, exit code out."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module, metadata, resources
from pathlib import Path
from typing import Any

import yaml

from penstock_sdk.errors import DefectError
from penstock_sdk.protocol import ConnectorIdentity
from penstock_sdk.runtime.client import RunClient
from penstock_sdk.runtime.masking import Mask
from penstock_sdk.runtime.run import AnyConnector, Assignment, run_connector

CREDENTIAL_PREFIX = "PENSTOCK_CREDENTIAL_"
GROUP = "penstock.connectors"


class JsonLines(logging.Formatter):
    """One JSON object a line, with the run that it belongs to and no secret in it."""

    def __init__(self, context: dict[str, Any], mask: Mask) -> None:
        super().__init__()
        self._context = context
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = (
            record.getMessage()
            if not record.exc_info
            else f"{record.getMessage()}: {self.formatException(record.exc_info)}"
        )
        line = {"ts": self.formatTime(record), "level": record.levelname.lower(), "message": self._mask(text)}
        return json.dumps({**line, **self._context})  # masked before: JSON escapes what a secret may contain


def take_credentials() -> dict[str, str]:
    """Return the credentials, and remove them from the environment that child processes and dumps would show."""
    names = [name for name in os.environ if name.startswith(CREDENTIAL_PREFIX)]
    return {name.removeprefix(CREDENTIAL_PREFIX): os.environ.pop(name) for name in names}


def load_connector(name: str) -> tuple[type[AnyConnector], ConnectorIdentity]:
    """Return the installed connector's class, and its identity from the manifest beside it."""
    found = next(iter(metadata.entry_points(group=GROUP, name=name)), None)
    if found is None:
        message = f"no installed package has the entry point {name!r} in group {GROUP!r}"
        raise DefectError(message)
    package = import_module(found.module.split(".")[0])
    text = (resources.files(package) / "connector.yaml").read_text()
    manifest = yaml.safe_load(text)
    return found.load(), ConnectorIdentity(**{key: str(manifest[key]) for key in ("name", "method", "version")})


def main() -> int:
    """Carry the attempt that the environment names."""
    # Batches are trees of short-lived dicts: the default thresholds spend more on looking for cycles than on reading.
    gc.set_threshold(100_000, 50, 100)
    credentials = take_credentials()
    run, attempt = os.environ["PENSTOCK_RUN_ID"], int(os.environ["PENSTOCK_ATTEMPT"])
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines({"run": run, "attempt": attempt}, Mask(list(credentials.values()))))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    token = Path(os.environ["PENSTOCK_TOKEN_FILE"]).read_text().strip()
    connector, identity = load_connector(os.environ["PENSTOCK_CONNECTOR"])
    assignment = Assignment(run, attempt, identity, connector, credentials)
    return run_connector(assignment, RunClient(os.environ["PENSTOCK_API_URL"], token), _on_sigterm)


def _on_sigterm(interrupt: Callable[[], None]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: interrupt())
