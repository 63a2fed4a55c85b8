"""Calls of the read API: of a server by URL, or of the data directory, which is served in this process.

Answers become the models of `penstock_operator.api.models` here; no command sees the JSON.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import httpx
import typer
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from penstock_operator.api.services import Services
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.cli.names import NOT_UTF8, encodable
from penstock_operator.cli.paths import path_word
from penstock_operator.embedded.platform import LOOPBACK, Backends, DataDirectory, backends, serving
from penstock_operator.embedded.private_files import free_port, recorded_process
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.limits import MAX_PAGE_ITEMS
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import create_pool
from penstock_operator.runs.protocol import RunProtocol
from penstock_operator.settings import s3_settings
from penstock_operator.tls import ClientTrust, TlsError, TrustedCertificates, failed_verification

M = TypeVar("M")
T = TypeVar("T")
Parameter: TypeAlias = str | int | bool | None
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

    async def get(self, model: type[M], path: str) -> M:
        """Return the answer of a GET."""
        return _parsed(TypeAdapter(model), await self.http.get(path))

    async def pages(
        self, model: type[M], path: str, *, most: int | None = None, **query: Parameter
    ) -> AsyncGenerator[M]:
        """Yield the items of a listing, `most` of them or all; pages are fetched as they are needed."""
        adapter, cursor = TypeAdapter(list[model]), None  # type: ignore[valid-type]
        left = most
        while left is None or left > 0:
            limit = MAX_PAGE_ITEMS if left is None else min(MAX_PAGE_ITEMS, left)
            response = await self.http.get(path, params=_given({**query, "limit": limit, "cursor": cursor}))
            items = _parsed(adapter, response)
            for item in items:
                yield item
            left = None if left is None else left - len(items)
            before, cursor = cursor, _next_cursor(response)
            if cursor is None or cursor == before or not items:
                return

    async def listing(self, model: type[M], path: str, *, most: int | None = None, **query: Parameter) -> list[M]:
        """Return the items of a listing, `most` of them or all."""
        return [item async for item in self.pages(model, path, most=most, **query)]

    async def text(self, path: str, **query: Parameter) -> AsyncGenerator[str]:
        """Yield the text of a GET as it comes, without a limit of time."""
        timeout = httpx.Timeout(30, read=None)
        async with self.http.stream("GET", path, params=_given(query), timeout=timeout) as response:
            if not response.is_success:
                await response.aread()
            async for chunk in _checked(response).aiter_text():
                yield chunk

    async def post(self, model: type[M], path: str, body: JsonValue = None) -> M:
        """Return the answer of a POST."""
        try:
            return _parsed(TypeAdapter(model), await self.http.post(path, json=body))
        except UnicodeEncodeError:
            raise CommandError(NOT_UTF8) from None


def _next_cursor(response: httpx.Response) -> str | None:
    """Return the cursor of the next page. Only that is taken from the link: the token goes to no other server."""
    try:
        cursor: str | None = httpx.URL(response.links["next"]["url"]).params.get("cursor")
        return cursor
    except (KeyError, ValueError, httpx.InvalidURL):
        return None


def _given(query: Mapping[str, Parameter]) -> dict[str, str | int | bool]:
    """Return the parameters that are not None. Raises CommandError for text that is not UTF-8."""
    for value in query.values():
        if isinstance(value, str):
            encodable(value)
    return {key: value for key, value in query.items() if value is not None}


def _parsed(adapter: TypeAdapter[M], response: httpx.Response) -> M:
    """Return a successful answer as its model. Raises CommandError for an error, and for a body of another shape."""
    _checked(response)
    try:
        document = response.json()
    except (ValueError, RecursionError):
        kind = response.headers.get("content-type", "no content type")
        raise CommandError(f"{response.url} answered {kind}, not JSON; does PENSTOCK_SERVER name a Penstock?") from None
    try:
        return adapter.validate_python(document)
    except (ValidationError, RecursionError):
        message = "the answer does not match the read API; does PENSTOCK_SERVER name a Penstock of this version?"
        raise CommandError(message) from None


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    message = _error_message(response)
    if message:
        raise CommandError(message)
    raise CommandError(f"{response.url} answered HTTP {response.status_code}; does PENSTOCK_SERVER name a Penstock?")


def _error_message(response: httpx.Response) -> str:
    """Return the server's message, or its errors of each field of the request; empty if the body has neither."""
    try:
        refusal = ErrorBody.model_validate_json(response.content)
    except ValidationError:
        return ""
    fields = (f"{'.'.join(map(str, error.loc[1:]))}: {error.msg}" for error in refusal.detail)
    return refusal.message or "; ".join(fields)


class FieldError(BaseModel):
    """An error of one field of a request, as FastAPI reports it."""

    loc: tuple[str | int, ...]
    msg: str


class ErrorBody(BaseModel):
    """The body of an error: a message of the read API, or errors of fields."""

    message: str = ""
    detail: tuple[FieldError, ...] = ()


def with_session(data_dir: Path, call: Callable[[ApiSession], Awaitable[T]]) -> T:
    """Open the read API, call the function with it, and return the result; for commands, which are not asynchronous."""

    async def opened() -> T:
        async with session(data_dir) as api:
            return await call(api)

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
        async with httpx.AsyncClient(
            base_url=_base_url(server), headers=headers, timeout=30, verify=_trusted()
        ) as http:
            yield ApiSession(http, store)
    except httpx.TransportError as error:
        refused = failed_verification(error)
        if refused is not None:
            message = (
                f"PENSTOCK_SERVER: the certificate of {server} is not accepted: {refused.verify_message.strip()};"
                " set PENSTOCK_CA_FILE to the file of its CA, and use a name that the certificate is for"
            )
            raise CommandError(message) from None
        reason = str(error) or type(error).__name__
        raise CommandError(f"PENSTOCK_SERVER: {server} does not answer as it should: {reason}") from None
    except httpx.HTTPError as error:
        raise CommandError(f"PENSTOCK_SERVER: {server}: {error or type(error).__name__}") from None


def _trusted() -> ssl.SSLContext:
    """Return a context that trusts the system's CAs and those of PENSTOCK_CA_FILE."""
    file = os.environ.get("PENSTOCK_CA_FILE", "")
    try:
        return ClientTrust(TrustedCertificates(*([Path(file)] if file else []))).context
    except TlsError as error:
        raise CommandError(f"PENSTOCK_CA_FILE: {error}") from None


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


__all__ = ["DATA_DIR", "ApiSession", "DataDir", "session", "with_session"]
