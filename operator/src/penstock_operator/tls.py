"""TLS between the parts of a release: what servers present, and what clients trust. The files may change at any time.

A folder has `tls.crt` and `tls.key`, which a server presents, and `ca.crt`, which its clients trust beside the CAs of the
system. Kubernetes mounts such a folder from a Secret and replaces its files together. They are looked at every few seconds.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import structlog

from penstock_operator.limits import HANDSHAKE_SECONDS, MAX_HANDSHAKES

log = structlog.get_logger()
CERTIFICATE, KEY, CA_BUNDLE = "tls.crt", "tls.key", "ca.crt"
RELOAD_SECONDS = 10.0
MOST_CA_BYTES = 128 * 1024
"""A bundle that is put into a pod is shorter: the API server takes 1.5 MB for a whole Job."""
Versions = tuple[int, ...]


class TlsError(Exception):
    """A file of certificates cannot be used; the message names it and says what to do."""


class ServerCertificate:
    """The certificate that a server presents, from a folder. `context` takes a changed one in while it is in use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.context = server_context()
        self._loaded = self._load()

    def reload(self) -> bool:
        """Load the files if they have changed, and return True if they have. Raises TlsError; the context stays as it was."""
        if self._versions() == self._loaded:
            return False
        self._loaded = self._load()
        return True

    def _load(self) -> Versions:
        versions = self._versions()
        # Kubernetes swaps a link to the folder of all files, so the two files behind one target belong together.
        actual = (self._folder / CERTIFICATE).resolve().parent
        _load_pair(server_context(), actual)  # a pair that does not match would leave the context without a certificate
        _load_pair(self.context, actual)
        return versions

    def _versions(self) -> Versions:
        found = list[int]()
        for name in (CERTIFICATE, KEY):
            try:
                status = (self._folder / name).stat()
            except OSError as error:
                raise TlsError(f"PENSTOCK_TLS_DIRECTORY: {self._folder / name}: {error.strerror}") from None
            found += [status.st_ino, status.st_mtime_ns, status.st_size]
        return tuple(found)


async def keep_fresh(*reloads: Callable[[], bool]) -> NoReturn:
    """Reload files from time to time. Those that cannot be used are reported once, and what was read before them stays."""
    reported = ""
    while True:
        await asyncio.sleep(RELOAD_SECONDS)
        try:
            for reload in reloads:
                if reload():
                    log.info("certificates reloaded")
            reported = ""
        except TlsError as error:
            if str(error) != reported:
                log.warning("certificates not reloaded", error=str(error))
            reported = str(error)


def server_context() -> ssl.SSLContext:
    """Return a context for servers: TLS 1.2 or newer, with the ciphers that Python considers safe."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_pair(context: ssl.SSLContext, folder: Path) -> None:
    try:
        context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        raise TlsError(
            f"PENSTOCK_TLS_DIRECTORY: {folder / CERTIFICATE} and {KEY} cannot be used ({reason});"
            " they must be a certificate and its private key, as PEM"
        ) from None


class Handshakes:
    """The TLS handshakes of one server that are not finished: each has a deadline, and there is a bound on their number.

    When there are too many, the oldest one is ended: a client that behaves needs milliseconds.
    """

    def __init__(self, context: ssl.SSLContext, most: int = MAX_HANDSHAKES, seconds: float = HANDSHAKE_SECONDS) -> None:
        self.context = context
        self.seconds = seconds
        self._most = most
        self._unfinished: dict[_TlsConnection, asyncio.Transport] = {}

    def __len__(self) -> int:
        return len(self._unfinished)

    def before(self, protocol: asyncio.Protocol) -> asyncio.BaseProtocol:
        """Return the protocol of one connection: after its handshake, `protocol` has it."""
        return _TlsConnection(self, protocol)

    def add(self, connection: _TlsConnection, transport: asyncio.Transport) -> None:
        """Add a handshake that begins."""
        self._unfinished[connection] = transport
        if len(self._unfinished) > self._most:
            oldest = next(iter(self._unfinished))
            self._unfinished.pop(oldest).abort()

    def discard(self, connection: _TlsConnection) -> None:
        """Forget a handshake that is finished, or whose connection is closed."""
        self._unfinished.pop(connection, None)


class _TlsConnection(SSLProtocol):
    """TLS on one connection. The base class is not documented, but handshakes cannot be counted without it: asyncio's own servers show a connection only after its handshake, and take 256 KiB for each."""

    max_size = 32 * 1024
    """Of the buffer that each connection has for what it receives; a TLS record has 16 KiB."""

    def __init__(self, handshakes: Handshakes, protocol: asyncio.Protocol) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            protocol,
            handshakes.context,
            None,  # type: ignore[arg-type]  # nobody waits, as in create_server
            server_side=True,
            ssl_handshake_timeout=handshakes.seconds,  # type: ignore[arg-type]  # a float, as in create_server
            ssl_shutdown_timeout=handshakes.seconds,
        )
        self._handshakes = handshakes

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self._handshakes.add(self, transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._handshakes.discard(self)
        super().connection_lost(exc)

    def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None:
        self._handshakes.discard(self)
        super()._on_handshake_complete(handshake_exc)


class TrustedCertificates:
    """The CAs that clients of the release trust beside the system's: those of some files, read anew whenever they are asked for."""

    def __init__(self, *files: Path) -> None:
        self._files = files

    def text(self) -> str:
        """Return all certificates as PEM, one after another; empty without files. Raises TlsError."""
        texts = [_ca_text(file) for file in self._files]
        return "".join(text if text.endswith("\n") else f"{text}\n" for text in dict.fromkeys(texts) if text)


class ClientTrust:
    """The context of a client. `reload` adds the CAs that have joined the files while it is in use."""

    def __init__(self, trusted: TrustedCertificates) -> None:
        self._trusted = trusted
        self._loaded = trusted.text()
        self.context = client_context(self._loaded)

    def reload(self) -> bool:
        """Trust what the files have now too, and return True if they have changed. Raises TlsError."""
        text = self._trusted.text()
        if text == self._loaded:
            return False
        if text:
            self.context.load_verify_locations(cadata=text)
        self._loaded = text
        return True


def client_context(ca_text: str = "") -> ssl.SSLContext:
    """Return a context that trusts the system's CAs and those of a PEM text."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_text:
        context.load_verify_locations(cadata=ca_text)
    return context


def _ca_text(file: Path) -> str:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise TlsError(f"the CA certificates of {file} cannot be read: {reason}") from None
    if len(text) > MOST_CA_BYTES:
        raise TlsError(
            f"{file} has {len(text)} bytes; at most {MOST_CA_BYTES} are accepted: name the CAs that are needed"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise TlsError(
            f"{file} holds no certificate as PEM; it must be the CA that signed the server's certificate"
        ) from None
    return text


def failed_verification(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return the failed verification of a server's certificate behind an error, None if it is another error."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
