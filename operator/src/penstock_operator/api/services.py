"""The services that the routes use."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_operator.api.authentication import Authenticator
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import Pool
from penstock_operator.runs.protocol import RunProtocol


@dataclass(frozen=True)
class Services:
    """The run protocol, the registry, the authentication of callers, and the logs of runs."""

    protocol: RunProtocol
    pool: Pool
    authenticator: Authenticator
    logs: RunLogs
