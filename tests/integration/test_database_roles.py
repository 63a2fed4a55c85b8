"""The roles of the controller and of the server: each does its work with its rights, and nothing beyond them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.registry.database import Pool, create_pool
from penstock_operator.registry.migrate import migrate
from penstock_operator.registry.roles import RoleError
from penstock_operator.settings import DatabaseRoles
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from tests.integration.test_deletion import (  # noqa: F401 - the controller's work, collected here with its role
    listing,
    orchestrator,
    test_9_a_connection_that_was_missed_once_is_due_again,
    test_10_a_connection_that_goes_while_all_are_put_on_schedule_is_retired_at_once,
    test_10_runs_of_a_connection_end_though_the_operator_was_killed_while_it_forgot_it,
)
from tests.integration.test_run_api import opened
from tests.run_api.contract import (  # noqa: F401 - the server's work, collected here with its role
    TestCheckpoints,
    TestCredentials,
    TestEstimate,
    TestFinish,
    TestHeartbeat,
    TestStart,
    TestStreams,
    TestUploads,
    TestWindow,
    pod,
    window_pod,
)
from tests.run_api.pods import WINDOW, Platform

PASSWORD = "secret"


@pytest.fixture
def roles(database_url: str) -> Iterator[DatabaseRoles]:
    """Two roles that exist and have no rights."""
    mark = uuid.uuid4().hex[:8]
    made = DatabaseRoles(f"controller_{mark}", f"server_{mark}")
    with psycopg.connect(database_url, autocommit=True) as session:
        for role in (made.controller, made.server):
            session.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(str(role)), PASSWORD))
        yield made
        for role in (made.controller, made.server):
            session.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(str(role))))
            session.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(str(role))))


def url_of(database_url: str, role: str | None) -> str:
    """Return the URL of the database for a role."""
    parts = urlsplit(database_url)
    return parts._replace(netloc=f"{role}:{PASSWORD}@{parts.hostname}:{parts.port}").geturl()


@asynccontextmanager
async def pool_of(database_url: str, role: str | None) -> AsyncIterator[Pool]:
    """Open a pool with a role's rights."""
    opening = create_pool(url_of(database_url, role), size=8)
    await opening.open(wait=True)
    try:
        yield opening
    finally:
        await opening.close()


@pytest.fixture
async def pool(database_url: str, roles: DatabaseRoles) -> AsyncIterator[Pool]:
    """The controller's pool: what the tests here call the registry is seen with its rights."""
    await migrate(database_url, roles)
    async with pool_of(database_url, roles.controller) as opening:
        yield opening


@pytest.fixture
async def server_pool(database_url: str, pool: Pool, roles: DatabaseRoles) -> AsyncIterator[Pool]:
    """The server's pool."""
    async with pool_of(database_url, roles.server) as opening:
        yield opening


@pytest.fixture
async def platform(pool: Pool, server_pool: Pool, store: BronzeStore) -> AsyncIterator[Platform]:
    async with opened(pool, store, serving=server_pool) as server:
        yield server


@pytest.fixture
async def window_platform(pool: Pool, server_pool: Pool, store: BronzeStore) -> AsyncIterator[Platform]:
    async with opened(pool, store, serving=server_pool, window=WINDOW.model_dump(mode="json")) as server:
        yield server


BEYOND_BOTH = (
    "CREATE TABLE penstock.mine ()",
    "ALTER TABLE penstock.connector_runs ADD COLUMN mine text",
    "DROP TABLE penstock.outbox",
    "TRUNCATE penstock.outbox",
    "INSERT INTO penstock.schema_migrations (name, sha256) VALUES ('x', 'x')",
    "DELETE FROM penstock.schema_migrations",
    "CREATE ROLE mine",
    "UPDATE penstock.audit_events SET actor = 'somebody else'",
    "DELETE FROM penstock.audit_events",
)
BEYOND_THE_SERVER = (
    "DELETE FROM penstock.connector_runs",
    "DELETE FROM penstock.bronze_objects",
    "DELETE FROM penstock.state_changes",
    "SELECT penstock.expire_audit_events(now(), 1000)",
    "UPDATE penstock.connector_definitions SET image = 'mine'",
    "INSERT INTO penstock.installation SELECT * FROM penstock.installation",
)
BEYOND_THE_CONTROLLER = (
    "SELECT ciphertext FROM penstock.credentials",
    "SELECT * FROM penstock.credentials",
    "UPDATE penstock.credentials SET ciphertext = 'x'",
    "INSERT INTO penstock.credentials (connection_uid, name, version, ciphertext) VALUES ('c', 'n', 1, 'x')",
)


async def refuses(pool: Pool, statement: str) -> None:
    """Try a statement; Postgres must refuse it for want of rights."""
    async with pool.connection() as session:
        with pytest.raises(InsufficientPrivilege):
            await session.execute(statement.encode())


@pytest.mark.parametrize("statement", [*BEYOND_BOTH, *BEYOND_THE_SERVER])
async def test_the_server_may_not(server_pool: Pool, statement: str) -> None:
    await refuses(server_pool, statement)


@pytest.mark.parametrize("statement", [*BEYOND_BOTH, *BEYOND_THE_CONTROLLER])
async def test_the_controller_may_not(pool: Pool, statement: str) -> None:
    await refuses(pool, statement)


async def test_the_controller_has_old_events_of_the_audit_deleted(pool: Pool) -> None:
    async with pool.connection() as session:
        done = await session.execute(b"SELECT penstock.expire_audit_events(now(), 1000) AS gone")
        assert await done.fetchone() == {"gone": 0}


async def test_a_right_that_somebody_added_is_taken_away_by_the_next_migration(
    database_url: str, server_pool: Pool, roles: DatabaseRoles
) -> None:
    with psycopg.connect(database_url, autocommit=True) as session:
        grant = "GRANT DELETE ON penstock.state_changes TO {}"
        session.execute(sql.SQL(grant).format(sql.Identifier(str(roles.server))))
    await migrate(database_url, roles)
    await refuses(server_pool, "DELETE FROM penstock.state_changes")


async def test_a_role_that_is_missing_is_named(database_url: str) -> None:
    with pytest.raises(RoleError, match="CREATE ROLE nobody_here LOGIN"):
        await migrate(database_url, DatabaseRoles(server="nobody_here"))
