"""The whole platform in one process tree: servers, migrations, API and loops. Postgres and S3 can be external ones instead."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvicorn
from penstock_sdk.protocol import Limits

from penstock_operator.api.app import create_app
from penstock_operator.api.authentication import EmbeddedAuthenticator
from penstock_operator.api.http_server import server_config
from penstock_operator.api.services import Services
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.controller.orchestrator import Components, Orchestrator
from penstock_operator.credentials.vault import Vault
from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded.folder import FolderResources
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_operator.embedded.private_files import free_port, kept_secret, recorded_process, start_time, write_private
from penstock_operator.embedded.s3 import EmbeddedS3
from penstock_operator.launchers.process import ProcessLauncher
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import Pool, create_pool
from penstock_operator.registry.installation import CONTROLLER
from penstock_operator.registry.migrate import migrate
from penstock_operator.runs.protocol import RunProtocol
from penstock_operator.settings import S3Settings, Timings, database_url, log_bytes, quotas, retention, s3_settings

LOOPBACK = "127.0.0.1"
TOKEN_SECRET = "token-secret"  # noqa: S105 - the name of a file
CREDENTIALS_KEY = "credentials-key"
KEY_BYTES = 24
OWN_FILES = {"penstock.pid", "backends", CREDENTIALS_KEY, TOKEN_SECRET, "postgres", "s3", "runs"}
FAST = Timings(poll=0.1, observe=0.5, sweep=60.0)


@dataclass(frozen=True)
class Backends:
    """The addresses of Postgres and S3: embedded, or those that the environment names."""

    database_url: str = field(repr=False)
    s3: S3Settings

    def save(self, path: Path) -> None:
        """Write the addresses for other commands on the machine; only the owner can read them."""
        write_private(path, json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Backends:
        """Return the addresses that `save` wrote."""
        document = json.loads(path.read_text())
        return cls(document["database_url"], S3Settings(**document["s3"]))


class DataDirectory:
    """The directory that holds everything; one platform at a time."""

    def __init__(self, path: Path) -> None:
        try:
            self.path = path.resolve()
        except (OSError, RuntimeError, ValueError):  # a loop of links, or a NUL
            raise EmbeddedError(f"--data-dir: {str(path)!r} leads nowhere; name a directory") from None

    @property
    def _lock(self) -> Path:
        return self.path / "penstock.pid"

    def check(self) -> None:
        """Raise EmbeddedError unless a platform has been up on the directory."""
        if not os.path.lexists(self.path):
            message = f"there is no data directory {self.path}; run `penstock up DIR` first, or set PENSTOCK_SERVER"
            raise EmbeddedError(message)
        if not os.path.isfile(self.path / TOKEN_SECRET):  # noqa: PTH113 - a Path raises for a name that is too long
            message = (
                f"{self.path} is not a data directory of Penstock, or its first `penstock up DIR` did not come so far;"
                " run that, or name another --data-dir"
            )
            raise EmbeddedError(message)

    def lock(self) -> None:
        """Lock the directory. Raises EmbeddedError, which names the process that has it or the problem."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = {entry.name for entry in self.path.iterdir()}
        except FileExistsError:
            raise EmbeddedError(f"--data-dir: {self.path} is a file; name a directory") from None
        except OSError as error:
            raise EmbeddedError(f"--data-dir: {self.path} cannot be used: {error.strerror}; name another") from None
        if foreign and not foreign & OWN_FILES:
            message = f"--data-dir: {self.path} holds files that are not Penstock's; name an empty or a new directory"
            raise EmbeddedError(message)
        if running := recorded_process(self._lock):
            message = f"a platform runs on {self.path} already (pid {running[0]}); stop it, or use another --data-dir"
            raise EmbeddedError(message)
        write_private(self._lock, f"{os.getpid()} {start_time(os.getpid())}")

    def unlock(self) -> None:
        """Unlock the directory."""
        self._lock.unlink(missing_ok=True)

    def vault(self, *, new_key: bool = False) -> Vault:
        """Return the vault for replaced credentials, whose keys are in this directory; `new_key` adds one, the first."""
        path = self.path / CREDENTIALS_KEY
        keys = kept_secret(path).split(",")
        if new_key and len(keys) == 1:
            keys.insert(0, secrets.token_urlsafe(KEY_BYTES))
            write_private(path, ",".join(keys))
        return Vault(tuple(keys))

    def forget_old_keys(self) -> None:
        """Keep the first key for replaced credentials only."""
        path = self.path / CREDENTIALS_KEY
        write_private(path, kept_secret(path).split(",")[0])

    def authenticator(self) -> EmbeddedAuthenticator:
        """Return the authority of this directory."""
        return EmbeddedAuthenticator(kept_secret(self.path / TOKEN_SECRET).encode())


@asynccontextmanager
async def backends(data: DataDirectory, environment: Mapping[str, str] = os.environ) -> AsyncIterator[Backends]:
    """Start the servers that the environment does not name, and stop them afterwards."""
    async with AsyncExitStack() as stack:
        if environment.get("PENSTOCK_DATABASE_URL"):
            url = database_url(environment)
        else:
            postgres = EmbeddedPostgres(data.path / "postgres")
            url = await asyncio.to_thread(postgres.start)
            stack.push_async_callback(asyncio.to_thread, postgres.stop)
        if environment.get("PENSTOCK_S3_ENDPOINT") or environment.get("PENSTOCK_S3_BUCKET"):
            s3 = s3_settings(environment)
        else:
            server = EmbeddedS3(data.path / "s3")
            s3 = await asyncio.to_thread(server.start)
            stack.push_async_callback(asyncio.to_thread, server.stop)
        await migrate(url)
        yield Backends(url, s3)


@dataclass(frozen=True)
class Platform:
    """A platform that is up."""

    pool: Pool
    store: BronzeStore
    resources: FolderResources
    orchestrator: Orchestrator
    launcher: ProcessLauncher
    api_url: str


@asynccontextmanager
async def serving(services: Services, port: int) -> AsyncIterator[None]:
    """Serve the API on loopback."""
    config = server_config(create_app(services), LOOPBACK, port, shutdown_seconds=1)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server._serve())  # noqa: SLF001 - serve() would take the process's signals
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def platform(directory: Path, data: DataDirectory, limits: Limits | None = None) -> AsyncIterator[Platform]:
    """Start everything but the loops."""
    async with AsyncExitStack() as stack:
        data.lock()
        stack.callback(data.unlock)
        found = await stack.enter_async_context(backends(data))
        found.save(data.path / "backends")
        pool = create_pool(found.database_url, name=CONTROLLER)
        await pool.open(wait=True, timeout=30)
        stack.push_async_callback(pool.close)
        store, authenticator = BronzeStore(found.s3), data.authenticator()
        resources = FolderResources(directory)
        resources.refresh()
        port = free_port(LOOPBACK)
        url = f"http://{LOOPBACK}:{port}"
        launcher = ProcessLauncher(lambda: url, data.path / "runs", resources.secret, authenticator.mint_pod)
        logs = RunLogs(pool, launcher.logs, store)
        services = Services(RunProtocol(pool, store, limits, data.vault()), pool, authenticator, logs)
        await stack.enter_async_context(serving(services, port))
        stack.push_async_callback(launcher.close)
        parts = Components(
            pool,
            resources,
            launcher,
            store,
            FAST,
            launcher.logs,
            log_bytes=log_bytes(),
            retention=retention(),
            quotas=quotas(),
        )
        yield Platform(pool, store, resources, Orchestrator(parts), launcher, url)
