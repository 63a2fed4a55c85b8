"""Credentials that a source has replaced, stored between commands, because a used refresh token is no longer valid.

The file is beside the test file and readable by its owner only. Each test file of a folder has its own. As on the platform,
a value belongs to the value of the test file that it replaced; if the test file changes, its value is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from penstock_sdk import protocol as wire
from penstock_sdk.author.project import ProjectError
from penstock_sdk.testing import TARGET_FILE

FILE = ".penstock-credentials.json"
STORED = TypeAdapter(dict[str, wire.RotatedCredential])


class CredentialFile:
    """The stored credentials of one test file. `values` are by the name of the credential."""

    def __init__(self, test_file: Path) -> None:
        self.path = test_file.parent / (FILE if test_file.name == TARGET_FILE else f".{test_file.stem}{FILE}")
        self.values = self._read()

    def _read(self) -> dict[str, wire.RotatedCredential]:
        try:
            return STORED.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError):
            message = f"{self.path}: it should contain replaced credentials, and cannot be read"
            raise ProjectError(f"{message}; remove it, and put valid credentials into the test file") from None

    def applied_to(self, credentials: Mapping[str, str]) -> dict[str, str]:
        """Return the credentials, with stored values instead of the values that they replaced."""
        return {
            name: self.values[name].value if name in self.values and self.values[name].seed == _seed(value) else value
            for name, value in credentials.items()
        }

    def hook_for(self, credentials: Mapping[str, str]) -> Callable[[str, str], None]:
        """Return the function that `keep_credential` calls. `credentials` are those of the test file."""

        def keep(name: str, value: str) -> None:
            self.values[name] = wire.RotatedCredential(value=value, seed=_seed(credentials.get(name, "")))
            self.save()

        return keep

    def save(self) -> None:
        """Write the file. Without any value no file is created."""
        if not self.values and not self.path.exists():
            return
        text = json.dumps({name: credential.model_dump() for name, credential in self.values.items()}, indent=2)
        new = self.path.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text + "\n")
        new.replace(self.path)


def _seed(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
