"""The server of the run API, on a real registry and a real bucket, passes the contract of the run protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from penstock_operator import definitions
from penstock_operator.api.app import create_app
from penstock_operator.api.authentication import EmbeddedAuthenticator
from penstock_operator.api.services import Services
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.credentials.vault import Vault
from penstock_operator.ids import AttemptNumber, RunId
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import Pool
from penstock_operator.resources.models import DefinitionSpec
from penstock_operator.runs import attempt_store, run_store, transitions
from penstock_operator.runs.attempt_store import AttemptOutcome
from penstock_operator.runs.protocol import RunProtocol
from penstock_operator.scheduling import fairness

from tests.integration.world import MANIFEST, World, new_world
from tests.run_api.contract import (  # noqa: F401 - collected here, on this module's platform
    TestCheckpoints,
    TestCredentialLeases,
    TestCredentials,
    TestEstimate,
    TestEveryCall,
    TestFinish,
    TestHeartbeat,
    TestRateLimit,
    TestStart,
    TestStreams,
    TestUploads,
    TestWindow,
    pod,
    window_pod,
)
from tests.run_api.pods import BUDGET, CREDENTIAL, RATE_LIMITS, REJECTS, SELECTED, WINDOW, Platform


class Server:
    """The server, on the registry and the bucket of the test."""

    run = "run1"

    def __init__(
        self, world: World, protocol: RunProtocol, authority: EmbeddedAuthenticator, http: httpx.AsyncClient
    ) -> None:
        self.http = http
        self.world, self.protocol, self._authority = world, protocol, authority
        self._attempt = 0

    async def next_attempt(self) -> tuple[int, str]:
        async with self.world.pool.connection() as db:
            lost = AttemptOutcome("lost", "AttemptLost")
            await transitions.fail_current(db, self.run, self._attempt, lost, disrupted=True)
        _, self._attempt = await self.world.claim(f"job{self._attempt + 1}")
        return self._attempt, self._authority.mint_pod(f"job{self._attempt}")

    async def next_attempt_without_job(self) -> tuple[int, str]:
        async with self.world.pool.connection() as db:
            (taken,) = await fairness.claim_runs(db, datetime.now(UTC) + timedelta(hours=1), 1)
        self._attempt = taken.attempt
        return taken.attempt, self._authority.mint_pod(f"job{taken.attempt}")

    async def record_job(self) -> None:
        async with self.world.pool.connection() as db:
            await attempt_store.record_job(db, RunId(self.run), AttemptNumber(self._attempt), f"job{self._attempt}")

    async def request_cancel(self) -> None:
        async with self.world.pool.connection() as db:
            await run_store.request_cancel(db, self.run)


@asynccontextmanager
async def opened(
    pool: Pool, store: BronzeStore, *, serving: Pool | None = None, **spec_of_run: Any
) -> AsyncIterator[Platform]:
    """Open the server. `serving` is its pool, if that is not the one that everything else uses."""
    world = await new_world(pool, store)
    methods = [{"type": "oauth2", "credentials": [{"name": CREDENTIAL}]}]
    capabilities = {**MANIFEST["capabilities"], "windows": True}
    manifest = {
        **MANIFEST,
        "authentication": {"methods": methods},
        "capabilities": capabilities,
        "rateLimits": RATE_LIMITS,
    }
    spec = {"image": "i@sha256:0", "stage": "certified", "manifest": manifest}
    async with pool.connection() as db:
        await definitions.upsert_definition(db, "d1", "faker-generate-0.1.0", 2, DefinitionSpec.model_validate(spec))
    world.spec["streams"] = [{"name": name, "mode": mode} for name, mode in SELECTED]
    world.spec["budget"] = {"records": BUDGET}
    world.spec["rejects"] = {"maxRecords": REJECTS.max_records, "maxShare": REJECTS.max_share}
    world.spec.update(spec_of_run)
    await world.new_run(Server.run)
    authority = EmbeddedAuthenticator(b"secret")
    serving = serving or pool
    protocol = RunProtocol(serving, store, vault=Vault(("key",)))
    logs = RunLogs(serving, FileLogs(Path("/nonexistent")), store)
    app = create_app(Services(protocol, serving, authority, logs))
    url = "http://penstock/v1/attempts/"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=url) as http:
        yield Server(world, protocol, authority, http)


@pytest.fixture
async def platform(pool: Pool, store: BronzeStore) -> AsyncIterator[Platform]:
    async with opened(pool, store) as server:
        yield server


@pytest.fixture
async def window_platform(pool: Pool, store: BronzeStore) -> AsyncIterator[Platform]:
    async with opened(pool, store, window=WINDOW.model_dump(mode="json")) as server:
        yield server
