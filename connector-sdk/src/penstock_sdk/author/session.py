"""A connector in this process, on the connection of the test file: for looking, not for proving."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock_sdk.author.kept_credentials import KeptCredentials
from penstock_sdk.author.project import ProjectError
from penstock_sdk.contract import Connector
from penstock_sdk.manifest import config_problems
from penstock_sdk.runtime.assignment import build
from penstock_sdk.testing import Subject, SubjectError, installed, opened_subject, read_document


def declared_connector(file: Path) -> str:
    """Return the entry point that the test file names; nothing of it is started."""
    document = read_document(file)
    if not isinstance(document, dict) or "connector" not in document:
        raise SubjectError(f"{file}: connector: Required value: the entry point's name, such as orders-rest")
    return str(document["connector"])


def fitting(subject: Subject, file: Path) -> Subject:
    """Return the subject. Raises ProjectError where its config is not what its connector's manifest wants."""
    wrong = config_problems(subject.config, installed(subject.artifact).manifest()["configSchema"], f"{file}: config")
    if wrong:
        raise ProjectError("; ".join(wrong))
    return subject


@contextmanager
def opened(file: Path) -> Iterator[tuple[Connector[Any, Any], Subject]]:
    """Give the connector, authenticated, and close it at the end."""
    with opened_subject(file) as subject:
        found = installed(fitting(subject, file).artifact)
        kept = KeptCredentials(file)
        connector = build(found.load(), subject.config, kept.applied_to(subject.credentials))
        connector.keeper = kept.keeper(subject.credentials)
        try:
            connector.authenticate()
            yield connector, subject
        finally:
            connector.close()
