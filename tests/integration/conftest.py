"""Real servers: one Postgres and one S3 for each worker, a fresh database for each test."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_operator.embedded.s3 import EmbeddedS3
from penstock_operator.registry.database import Pool, create_pool
from penstock_operator.registry.migrate import migrate
from penstock_operator.settings import S3Settings

from tests.integration.world import World, new_world


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Postgres."""
    directory = tmp_path_factory.mktemp("postgres") / "server"
    with EmbeddedPostgres(directory) as server:
        yield server.url


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> str:
    """The name of the database that those of tests are copies of: it has a registry."""
    name = "migrated"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    asyncio.run(migrate(postgres_url.rsplit("/", 1)[0] + f"/{name}"))
    return name


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A database on it with a fresh registry."""
    with _database(postgres_url, template_database) as url:
        yield url


@pytest.fixture
def source_url(postgres_url: str) -> Iterator[str]:
    """An empty database on it, for the tables of a source.

    A table made without the name of a schema is in `public` here. In a
    database with a registry it would be in the registry's schema, which
    has the name of the user.
    """
    with _database(postgres_url, "template1") as url:
        yield url


@contextmanager
def _database(postgres_url: str, template: str) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield postgres_url.rsplit("/", 1)[0] + f"/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Settings]:
    """A real S3 protocol."""
    with EmbeddedS3(tmp_path_factory.mktemp("s3") / "server") as server:
        yield server.settings


@pytest.fixture
def store(s3_server: S3Settings) -> BronzeStore:
    """A prefix of its own for each test."""
    return BronzeStore(dataclasses.replace(s3_server, prefix=uuid.uuid4().hex))


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """A pool on a fresh registry."""
    opened = create_pool(database_url, size=8)
    await opened.open(wait=True)
    yield opened
    await opened.close()


@pytest.fixture
def backends_environment(database_url: str, s3_server: S3Settings) -> dict[str, str]:
    """The environment that has `penstock up` use the servers of this session."""
    return {
        "PENSTOCK_DATABASE_URL": database_url,
        "PENSTOCK_S3_ENDPOINT": s3_server.endpoint or "",
        "PENSTOCK_S3_BUCKET": s3_server.bucket,
        "PENSTOCK_S3_PREFIX": uuid.uuid4().hex,
        "AWS_ACCESS_KEY_ID": s3_server.access_key or "",
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key or "",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of resources."""
    path = tmp_path / "resources"
    path.mkdir()
    return path


@pytest.fixture
async def world(pool: Pool, store: BronzeStore) -> World:
    """A registry with one connection, and the protocol over it."""
    return await new_world(pool, store)
