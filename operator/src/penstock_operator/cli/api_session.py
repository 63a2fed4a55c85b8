"""Where a command finds the read API: a server by URL, or the data directory, served in this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from penstock_operator.api.services import Services
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.cli.names import NOT_UTF8, encodable
from penstock_operator.cli.paths import path_word
from penstock_operator.embedded.platform import LOOPBACK, Backends, DataDirectory, backends, serving
from penstock_operator.embedded.private_files import free_port, recorded_process
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import create_pool
from penstock_operator.runs.protocol import RunProtocol
from penstock_operator.settings import s3_settings

DATA_DIR = Path(".penstock")
LAST_PORT = 65535
DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar="PENSTOCK_DATA_DIR",
        help="Where the embedded platform keeps everything.",
        parser=path_word,
        metavar="PATH",
    ),
]


@dataclass(frozen=True)
class ApiSession:
    """The read API, and the bucket where objects are to be read."""

    http: httpx.AsyncClient
    store: BronzeStore | None

    async def get(self, path: str, **parameters: Any) -> Any:
        """Return a GET's JSON; parameters that are None are left out."""
        return _document(await self.http.get(path, params=_given(parameters)))

    async def text(self, path: str, **parameters: Any) -> AsyncGenerator[str]:
        """Yield a GET's text as it comes, however long that takes; parameters that are None are left out."""
        patience = httpx.Timeout(30, read=None)
        async with self.http.stream("GET", path, params=_given(parameters), timeout=patience) as response:
            if not response.is_success:
                await response.aread()
            async for chunk in _checked(response).aiter_text():
                yield chunk

    async def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return a POST's JSON."""
        try:
            return _document(await self.http.post(path, json=body))
        except UnicodeEncodeError:
            raise CommandError(NOT_UTF8) from None

    async def changed(self, path: str, body: dict[str, Any] | None, field: str) -> str:
        """Return one field of a POST's answer, which a Penstock always gives."""
        return str(with_fields(await self.post(path, body), path, field)[field])


def _given(parameters: dict[str, Any]) -> dict[str, str | int | bool]:
    """Return the parameters that are given. Raises CommandError for one that is no text."""
    for value in parameters.values():
        if isinstance(value, str):
            encodable(value)
    return {key: value for key, value in parameters.items() if value is not None}


def with_fields(answer: Any, path: str, *fields: str) -> dict[str, Any]:
    """Return an answer that is an object with these fields. Raises CommandError for any other: it is no Penstock's."""
    lacking = [field for field in fields if not isinstance(answer, dict) or field not in answer]
    if lacking:
        raise CommandError(f"{path}: the answer has no {lacking[0]}; does PENSTOCK_SERVER name a Penstock?")
    return dict(answer)


def _document(response: httpx.Response) -> Any:
    try:
        return _checked(response).json()
    except (ValueError, RecursionError):
        kind = response.headers.get("content-type", "nothing that is named")
        message = f"{response.url} answered {kind}, not JSON; does PENSTOCK_SERVER name a Penstock?"
        raise CommandError(message) from None


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    said = _words(response)
    if said:
        raise CommandError(said)
    raise CommandError(f"{response.url} answered HTTP {response.status_code}; does PENSTOCK_SERVER name a Penstock?")


def _words(response: httpx.Response) -> str:
    """Return the server's message, or what it has against each field of the request."""
    try:
        answer = response.json()
        found = [f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in answer.get("detail", [])]
        return str(answer.get("message") or "; ".join(found))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def with_session(data_dir: Path, act: Callable[[ApiSession], Awaitable[Any]]) -> Any:
    """Return what an act on the read API returns: the session of a command that is not asynchronous itself."""

    async def opened() -> Any:
        async with session(data_dir) as found:
            return await act(found)

    return asyncio.run(opened())


@asynccontextmanager
async def session(data_dir: Path) -> AsyncIterator[ApiSession]:
    """Open the read API: of PENSTOCK_SERVER with PENSTOCK_TOKEN, else of the data directory."""
    server = os.environ.get("PENSTOCK_SERVER")
    if server:
        async with _remote(server) as opened:
            yield opened
        return
    async with _embedded(data_dir) as opened:
        yield opened


@asynccontextmanager
async def _remote(server: str) -> AsyncIterator[ApiSession]:
    token = os.environ.get("PENSTOCK_TOKEN", "")
    if not (token.isascii() and token.isprintable()):
        raise CommandError("PENSTOCK_TOKEN holds characters that no token has; set it again")
    headers = {"Authorization": f"Bearer {token}"}
    store = BronzeStore(s3_settings()) if os.environ.get("PENSTOCK_S3_BUCKET") else None
    try:
        async with httpx.AsyncClient(base_url=_base_url(server), headers=headers, timeout=30) as http:
            yield ApiSession(http, store)
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise CommandError(f"PENSTOCK_SERVER: {server} does not answer as it should: {reason}") from None
    except httpx.HTTPError as error:
        raise CommandError(f"PENSTOCK_SERVER: {server}: {error or type(error).__name__}") from None


def _base_url(server: str) -> httpx.URL:
    """Return the address of a server's API. Raises CommandError for what is no address."""
    try:
        url = httpx.URL(f"{server.rstrip('/')}/v1")
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > LAST_PORT:
        raise CommandError(f"PENSTOCK_SERVER: {server!r} is not a URL such as https://penstock.example.org")
    return url


@asynccontextmanager
async def _embedded(data_dir: Path) -> AsyncIterator[ApiSession]:
    data = DataDirectory(data_dir)
    data.check()
    async with AsyncExitStack() as stack:
        live = _live(data)
        if live is None:
            data.lock()
            stack.callback(data.unlock)
        found = live if live is not None else await stack.enter_async_context(backends(data))
        pool = create_pool(found.database_url, size=4)
        await pool.open(wait=True, timeout=30)
        stack.push_async_callback(pool.close)
        store, authenticator = BronzeStore(found.s3), data.authenticator()
        logs = RunLogs(pool, FileLogs(data.path / "runs" / "logs"), store)
        port = free_port(LOOPBACK)
        await stack.enter_async_context(serving(Services(RunProtocol(pool, store), pool, authenticator, logs), port))
        headers = {"Authorization": f"Bearer {authenticator.mint_person()}"}
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}/v1", headers=headers, timeout=30, trust_env=False)
        )
        yield ApiSession(http, store)


def _live(data: DataDirectory) -> Backends | None:
    """Return the backends of the platform that runs on the directory now, None when none does."""
    recorded = data.path / "backends"
    lock = data.path / "penstock.pid"
    if recorded_process(lock) is None or not recorded.exists():
        return None
    return Backends.load(recorded)


__all__ = ["DATA_DIR", "ApiSession", "DataDir", "session", "with_fields"]
