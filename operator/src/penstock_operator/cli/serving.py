"""The certificate of a server process: read from its folder, and kept fresh while the process serves."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from penstock_operator.settings import tls_directory
from penstock_operator.tls import ServerCertificate, keep_fresh

log = structlog.get_logger()


@asynccontextmanager
async def serving_certificate(*others: Callable[[], bool]) -> AsyncIterator[ssl.SSLContext | None]:
    """Give the context that a server presents its certificate with; None without PENSTOCK_TLS_DIRECTORY: plain HTTP.

    `others` reload other files of the process meanwhile. Raises TlsError.
    """
    folder = tls_directory()
    if folder is None:
        log.warning("TLS is off", effect="the network can read and change what this process serves")
        yield None
        return
    certificate = ServerCertificate(folder)
    refreshing = asyncio.create_task(keep_fresh(certificate.reload, *others), name="serving certificate")
    try:
        yield certificate.context
    finally:
        refreshing.cancel()
