"""An authority of the egress gateway that a test sets up, and a gateway on loopback."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from penstock_operator.egress.addresses import Address, AddressPolicy, parse_networks
from penstock_operator.egress.authority import EgressAuthority, RunEgress, UnknownRun
from penstock_operator.egress.gateway import Gateway, GatewayLimits
from penstock_operator.ids import AttemptNumber, RunId
from penstock_sdk import protocol as wire
from penstock_sdk.manifest import EgressRule

TOKEN = "the-run-token"
LOOPBACK_ALLOWED = AddressPolicy(parse_networks("127.0.0.0/8, ::1/128"))


class FakeEgressAuthority:
    """Knows one run, by its token. `reports` are what the gateway reported."""

    def __init__(self, rules: Iterable[EgressRule]) -> None:
        self.rules = tuple(rules)
        self.reports: list[wire.EgressReport] = []
        self.has_ended = False

    async def egress_of(self, token: str) -> RunEgress:
        """Return the rules of the run."""
        if token != TOKEN or self.has_ended:
            raise UnknownRun
        return RunEgress(RunId("run-1"), AttemptNumber(1), self.rules)

    async def report(self, token: str, report: wire.EgressReport) -> None:
        """Keep a report."""
        assert token == TOKEN
        self.reports.append(report)

    @property
    def denials(self) -> list[wire.EgressDenial]:
        """The denials, oldest first."""
        return [denial for report in self.reports for denial in report.denials]


CHECKED: type[EgressAuthority] = FakeEgressAuthority


class FakeNames:
    """A name server: each name has a list of answers, of which every lookup takes the next; the last one stays."""

    def __init__(self, answers: Mapping[str, list[list[Address]]]) -> None:
        self._answers = {name: list(given) for name, given in answers.items()}
        self.lookups: list[str] = []

    async def __call__(self, host: str, port: int) -> list[Address]:
        """Return the addresses of a name."""
        del port
        self.lookups.append(host)
        answers = self._answers.get(host)
        if not answers:
            raise OSError(f"no such name: {host}")
        return answers.pop(0) if len(answers) > 1 else answers[0]


@asynccontextmanager
async def listening(gateway: Gateway, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve on loopback, and give the port."""
    server = await gateway.listen("127.0.0.1", 0, tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await gateway.close()


def gateway(
    authority: FakeEgressAuthority,
    policy: AddressPolicy = LOOPBACK_ALLOWED,
    limits: GatewayLimits | None = None,
    names: FakeNames | None = None,
) -> Gateway:
    """Return a gateway."""
    return Gateway(authority, policy, limits, names) if names else Gateway(authority, policy, limits)


def manifest_document(egress: list[dict[str, Any]], **properties: Any) -> dict[str, Any]:
    """Return a manifest with these destinations; `properties` are those of its configSchema."""
    return {
        "name": "shop",
        "method": "rest",
        "version": "1.0.0",
        "title": "Shop",
        "taxonomy": {"category": "api"},
        "capabilities": {"modes": ["full"]},
        "authentication": {"methods": [{"type": "none"}]},
        "configSchema": {"type": "object", "properties": properties},
        "runners": ["kubernetes", "process"],
        "network": {"egress": egress},
        "compliance": {"dataClassification": "internal", "pii": "none"},
    }
