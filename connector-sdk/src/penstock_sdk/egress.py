"""How a connector reaches a source with a protocol of its own.

In a cluster, a run's pod reaches its source through the egress gateway only. HTTP clients that read the usual environment
variables (`HTTPS_PROXY`: httpx, requests, urllib, boto3) use it by themselves, and so does psycopg. Any other client
connects to the address that `tunnel` returns:

    address, port = tunnel("db.example.com", 3306)
    connection = pymysql.connect(host=address, port=port, ...)

Without a gateway, as in `penstock up` or in a test, `tunnel` returns the host and the port themselves. For TLS, give the
client the source's own name to verify (`server_hostname`), as the address is the one of a local tunnel.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["tunnel"]

_open_tunnel: Callable[[str, int], tuple[str, int]] | None = None


def tunnel(host: str, port: int) -> tuple[str, int]:
    """Return the address and the port to connect to in place of `host` and `port`.

    Raises ConfigError if the platform denies the destination: its message says what to declare. Raises TransientError if the
    gateway or the source does not answer.
    """
    return (host, port) if _open_tunnel is None else _open_tunnel(host, port)


def use_tunnels(open_tunnel: Callable[[str, int], tuple[str, int]] | None) -> None:
    """Have `tunnel` call this function; None: no gateway. The runtime calls it before the connector is made."""
    global _open_tunnel  # noqa: PLW0603 - one process runs one attempt
    _open_tunnel = open_tunnel
