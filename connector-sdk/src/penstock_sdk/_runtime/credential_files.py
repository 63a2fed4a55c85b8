"""The credentials that the launcher gives to a connector's process: one file each, or an environment variable each."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from penstock_sdk._launch_variables import CREDENTIAL_VARIABLE_PREFIX, CREDENTIALS_DIRECTORY_VARIABLE


def take_credentials(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Return the credentials by name, and remove them from the environment, so that no child process inherits them.

    Raises OSError or UnicodeDecodeError if a file cannot be read.
    """
    names = [name for name in environment if name.startswith(CREDENTIAL_VARIABLE_PREFIX)]
    credentials = {name.removeprefix(CREDENTIAL_VARIABLE_PREFIX): environment.pop(name) for name in names}
    directory = environment.get(CREDENTIALS_DIRECTORY_VARIABLE)
    if directory:
        # Kubernetes keeps the data of a volume in folders that begin with two dots, and links to them.
        files = (path for path in Path(directory).iterdir() if not path.name.startswith("..") and path.is_file())
        credentials |= {path.name: path.read_text(encoding="utf-8") for path in files}
    return credentials
