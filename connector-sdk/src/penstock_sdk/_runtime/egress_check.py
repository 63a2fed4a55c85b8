"""Holds a connector to the hosts of its manifest where no gateway does: `penstock up` on a laptop.

Python's own sockets and psycopg are checked. A connection that a C library opens by itself is not seen: on a laptop this
finds mistakes in a manifest, and isolates nobody.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.audit_events import audited
from penstock_sdk._runtime.psycopg_tunnels import use_in_psycopg
from penstock_sdk.errors import ConfigError
from penstock_sdk.manifest import DEFAULT_EGRESS_PORT, EgressRule, is_address, normal_host

NOT_DECLARED = "network.egress of the manifest does not declare this host and port"
DNS_PORT = 53


class EgressCheck:
    """Refuses undeclared destinations. `denials` are the destinations refused so far, each once."""

    def __init__(self, rules: list[EgressRule]) -> None:
        self._rules = rules
        self._names = {rule.host for rule in rules if not rule.host.startswith("*.")}
        self._own = threading.local()
        self.denials: list[wire.EgressDenial] = []

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Check the connections that code inside opens, in every thread of the process."""
        psycopg = sys.modules.get("psycopg")
        if psycopg is not None:
            use_in_psycopg(psycopg, self.direct)
        with audited(("socket.getaddrinfo", self._on_lookup), ("socket.connect", self._on_connect)):
            yield

    @contextmanager
    def platform_traffic(self) -> Iterator[None]:
        """Let this thread connect to the platform: the run API and the bucket are not the connector's."""
        before, self._own.active = getattr(self._own, "active", False), True
        try:
            yield
        finally:
            self._own.active = before

    def direct(self, host: str, port: int) -> tuple[str, int]:
        """Return host and port as they are. Raises ConfigError if they are not declared."""
        name = normal_host(host)
        if name is None or not any(rule.allows(name, port) for rule in self._rules):
            self._deny(host, port)
        return host, port

    def _on_lookup(self, arguments: tuple[object, ...]) -> None:
        if getattr(self._own, "active", False):
            return
        host = _text(arguments[0])
        name = normal_host(host) if host else None
        if name is None or is_address(name) or name == "localhost":
            return  # what is connected to is checked then
        if not any(rule.allows(name, rule.port) for rule in self._rules):
            self._deny(name, arguments[1] if isinstance(arguments[1], int) else DEFAULT_EGRESS_PORT)
        self._names.add(name)  # a name that a wildcard covers

    def _on_connect(self, arguments: tuple[object, ...]) -> None:
        opened, address = arguments
        if (
            getattr(self._own, "active", False)
            or not isinstance(opened, socket.socket)
            or not isinstance(address, tuple)
        ):
            return
        if opened.family not in (socket.AF_INET, socket.AF_INET6) or opened.type != socket.SOCK_STREAM:
            return  # connecting a datagram socket sends nothing
        host, port = _text(address[0]), int(address[1])
        name = normal_host(host.partition("%")[0]) or host
        if any(rule.allows(name, port) for rule in self._rules) or self._is_resolved(name, port):
            return
        self._deny(name, port)

    def _is_resolved(self, address: str, port: int) -> bool:
        """Return True if a declared name with this port has the address."""
        declared = [name for name in self._names if any(rule.allows(name, port) for rule in self._rules)]
        with self.platform_traffic():
            return any(address in _addresses(name) for name in declared)

    def _deny(self, host: str, port: int) -> None:
        denial = wire.EgressDenial(host=host[:255] or "-", port=port or DEFAULT_EGRESS_PORT, reason=NOT_DECLARED)
        if denial not in self.denials:
            self.denials.append(denial)
        raise ConfigError(
            f"egress to {denial.host}:{denial.port} is denied: {NOT_DECLARED}; declare it, or correct spec.config"
        )


def _addresses(name: str) -> set[str]:
    try:
        return {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(name, None)}
    except (OSError, UnicodeError):
        return set()


def _text(host: object) -> str:
    return host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or "")
