"""What the tests of connectors share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from penstock_operator.settings import S3Settings

from tests.integration.connectors.bucket import Bucket
from tests.integration.connectors.files_server import FilesServer, serving


@pytest.fixture
def execute(source_url: str) -> Iterator[Callable[[str], None]]:
    """Change the source."""
    with psycopg.connect(source_url, autocommit=True) as connection:

        def run(statement: str) -> None:
            connection.execute(statement.encode())

        yield run


@pytest.fixture
def bucket(s3_server: S3Settings) -> Bucket:
    return Bucket(s3_server)


@pytest.fixture
def server() -> Iterator[FilesServer]:
    with serving() as running:
        yield running
