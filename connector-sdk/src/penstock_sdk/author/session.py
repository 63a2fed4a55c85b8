"""A connector in this process, on the connection of the test file: for looking, not for proving."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from penstock_sdk.author.kept_credentials import KeptCredentials
from penstock_sdk.author.project import ProjectError
from penstock_sdk.contract import Connector
from penstock_sdk.manifest import config_problems
from penstock_sdk.runtime.assignment import build
from penstock_sdk.testing import Subject, SubjectError, installed, opened_subject


def declared_connector(file: Path) -> str:
    """Return the entry point that the test file names; nothing of it is started."""
    try:
        document = yaml.safe_load(file.read_text())
    except OSError as error:
        raise SubjectError(
            f"{file}: {error.strerror}; run this in the project's folder, or name one with --file"
        ) from None
    if not isinstance(document, dict) or "connector" not in document:
        raise SubjectError(f"{file}: connector: Required value: the entry point's name, such as orders-rest")
    return str(document["connector"])


@contextmanager
def opened(file: Path) -> Iterator[tuple[Connector[Any, Any], Subject]]:
    """Give the connector, authenticated, and close it at the end."""
    with opened_subject(file) as subject:
        found = installed(subject.artifact)
        wrong = config_problems(subject.config, found.manifest()["configSchema"], f"{file}: config")
        if wrong:
            raise ProjectError("; ".join(wrong))
        kept = KeptCredentials(file)
        connector = build(found.load(), subject.config, kept.applied_to(subject.credentials))
        connector.keeper = kept.keeper(subject.credentials)
        try:
            connector.authenticate()
            yield connector, subject
        finally:
            connector.close()
