"""A connector in this process, with the connection of the test file: to look at its streams and records, not to test it."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from penstock_sdk._runtime.assignment import build
from penstock_sdk.auth import LocalCredential, auth_for
from penstock_sdk.author.command_errors import printable
from penstock_sdk.author.credential_file import CredentialFile
from penstock_sdk.author.project import ProjectError
from penstock_sdk.contract import Connector
from penstock_sdk.errors import describe_error
from penstock_sdk.manifest import Manifest, config_problems
from penstock_sdk.testing import Target, TargetError, find_connector, open_target, read_document


def declared_connector(file: Path) -> str:
    """Return the entry point that the test file names. Nothing is started."""
    document = read_document(file)
    if not isinstance(document, dict) or "connector" not in document:
        raise TargetError(f"{file}: connector: Required value: the entry point's name, such as orders-rest")
    return str(document["connector"])


def checked_target(target: Target, file: Path) -> Target:
    """Return the target. Raises ProjectError if its config does not match the manifest's configSchema."""
    schema: Any = find_connector(target.artifact).manifest()["configSchema"]  # penstock-connector spec checks it
    wrong = config_problems(target.config, schema, f"{file}: config")
    if wrong:
        raise ProjectError("; ".join(wrong))
    return target


@contextmanager
def opened(file: Path) -> Iterator[tuple[Connector[Any, Any], Target]]:
    """Yield the authenticated connector and its target, and close the connector at the end.

    The connector's printed output goes to standard error, because standard output belongs to the command.
    """
    with open_target(file) as target, _printing_to_errors():
        found = find_connector(checked_target(target, file).artifact)
        kept = CredentialFile(file)
        credentials = kept.applied_to(target.credentials)
        connector = build(found.load(), target.config, credentials)
        keep = kept.hook_for(target.credentials)
        connector.keep_credential_hook = keep

        def share(name: str) -> LocalCredential:
            return LocalCredential(credentials[name], partial(keep, name))

        manifest = Manifest.model_validate(found.manifest())
        connector.authentication_hook = lambda: auth_for(manifest, target.config, credentials, share=share)
        try:
            connector.authenticate()
            yield connector, target
        finally:
            _close(connector)


@contextmanager
def _printing_to_errors() -> Iterator[None]:
    """Let print() write to standard error, through a separate stream, which a connector may close."""
    own = io.TextIOWrapper(io.BufferedWriter(_Errors()), "utf-8", errors="backslashreplace", line_buffering=True)
    try:
        with redirect_stdout(own):
            yield
    finally:
        if not own.closed:
            own.close()


class _Errors(io.RawIOBase):
    """The present standard error."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        text = bytes(data).decode(errors="backslashreplace")
        print(text, end="", file=sys.stderr)  # noqa: T201 - output of the connector
        return len(bytes(data))


def _close(connector: Connector[Any, Any]) -> None:
    """Close the connector. As in a pod, an error of `close` is only a warning."""
    try:
        connector.close()
    except Exception as error:  # noqa: BLE001 - any error is only a warning
        print(printable(f"warning: the connector's close() failed: {describe_error(error)}"), file=sys.stderr)  # noqa: T201
