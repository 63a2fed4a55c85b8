"""psycopg connects by libpq, which Python's sockets and proxies know nothing of: its own `connect` is asked instead."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

POSTGRES_PORT = 5432
PSYCOPG_OPTIONS = ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory")
"""Keywords of psycopg's connect() that are not libpq's."""


def use_in_psycopg(psycopg: ModuleType, tunnel: Callable[[str, int], tuple[str, int]]) -> None:
    """Have psycopg's connections use tunnels: `hostaddr` is where libpq connects, `host` is the name that it verifies.

    `tunnel` returns the address and the port to connect to in place of a host and a port, perhaps these themselves.
    """

    def through(conninfo: str, options: dict[str, Any]) -> dict[str, Any]:
        parameters = psycopg.conninfo.conninfo_to_dict(
            conninfo, **{name: value for name, value in options.items() if name not in PSYCOPG_OPTIONS}
        )
        host = str(parameters.get("host") or parameters.get("hostaddr") or "")
        if not host or host.startswith("/") or "," in host:
            return options
        address, port = tunnel(host, int(parameters.get("port") or POSTGRES_PORT))
        if address == host:
            return options
        return {**options, "host": host, "hostaddr": address, "port": port}

    connect = psycopg.Connection.connect.__func__
    connect_async = psycopg.AsyncConnection.connect.__func__

    def connected(cls: type, /, conninfo: str = "", **options: Any) -> Any:
        return connect(cls, conninfo, **through(conninfo, options))

    async def connected_async(cls: type, /, conninfo: str = "", **options: Any) -> Any:
        import asyncio

        return await connect_async(cls, conninfo, **await asyncio.to_thread(through, conninfo, options))

    psycopg.Connection.connect = classmethod(connected)
    vars(psycopg).update(connect=psycopg.Connection.connect)
    psycopg.AsyncConnection.connect = classmethod(connected_async)
