"""What the tests of connectors share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest


@pytest.fixture
def execute(database_url: str) -> Iterator[Callable[[str], None]]:
    """Change the source."""
    with psycopg.connect(database_url, autocommit=True) as connection:

        def run(statement: str) -> None:
            connection.execute(statement.encode())

        yield run
