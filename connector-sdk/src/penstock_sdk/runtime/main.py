"""The process: environment in, exit code out."""

from __future__ import annotations

import atexit
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
from penstock_sdk.runtime.masking import Mask, MaskedLines
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


def load_connector(name: str) -> tuple[type[AnyConnector], dict[str, Any]]:
    """Return the installed connector's class, and the manifest beside it."""
    found = next(iter(metadata.entry_points(group=GROUP, name=name)), None)
    if found is None:
        message = f"no installed package has the entry point {name!r} in group {GROUP!r}"
        raise DefectError(message)
    package = import_module(found.module.split(".")[0])
    text = (resources.files(package) / "connector.yaml").read_text()
    return found.load(), yaml.safe_load(text)


def identity_of(manifest: dict[str, Any]) -> ConnectorIdentity:
    """Return what names the definition."""
    return ConnectorIdentity(**{key: str(manifest[key]) for key in ("name", "method", "version")})


def shown_credentials(manifest: dict[str, Any]) -> frozenset[str]:
    """Return the credentials that are no secret: a message that masks a user's name hides what it is about."""
    declared = [each for method in manifest["authentication"]["methods"] for each in method.get("credentials", [])]
    return frozenset(each["name"] for each in declared if each.get("secret", True) is False)


def main() -> int:
    """Carry the attempt that the environment names."""
    # Batches are trees of short-lived dicts: the default thresholds spend more on looking for cycles than on reading.
    gc.set_threshold(100_000, 50, 100)
    credentials = take_credentials()
    run, attempt = os.environ["PENSTOCK_RUN_ID"], int(os.environ["PENSTOCK_ATTEMPT"])
    connector, manifest = load_connector(os.environ["PENSTOCK_CONNECTOR"])
    assignment = Assignment(
        run, attempt, identity_of(manifest), connector, credentials, shown=shown_credentials(manifest)
    )
    mask = Mask(assignment.secrets())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines({"run": run, "attempt": attempt}, mask))
    printed = MaskedLines(sys.stderr, mask)
    atexit.register(printed.close)
    sys.stdout = sys.stderr = printed  # what a connector prints, and a last traceback
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    token = Path(os.environ["PENSTOCK_TOKEN_FILE"]).read_text().strip()
    return run_connector(assignment, RunClient(os.environ["PENSTOCK_API_URL"], token), _on_sigterm)


def _on_sigterm(interrupt: Callable[[], None]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: interrupt())
