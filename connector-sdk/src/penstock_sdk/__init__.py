"""The contract of a Penstock connector.

Everything an author needs is here; the runtime that carries a connector inside a pod is
`penstock_sdk.runtime`, the manifest's model `penstock_sdk.manifest`, the run API's `penstock_sdk.protocol`.
"""

from __future__ import annotations

from penstock_sdk.contract import (
    Batch,
    CollectingSink,
    Connector,
    Cursor,
    CursorCare,
    Drift,
    Estimate,
    Mode,
    Op,
    Partition,
    Record,
    Records,
    Sink,
    Stream,
    Window,
)
from penstock_sdk.errors import (
    AuthenticationError,
    ConfigError,
    ConnectorError,
    DefectError,
    LocalPersistenceError,
    SourceContractError,
    TransientError,
)

__all__ = [
    "AuthenticationError",
    "Batch",
    "CollectingSink",
    "ConfigError",
    "Connector",
    "ConnectorError",
    "Cursor",
    "CursorCare",
    "DefectError",
    "Drift",
    "Estimate",
    "LocalPersistenceError",
    "Mode",
    "Op",
    "Partition",
    "Record",
    "Records",
    "Sink",
    "SourceContractError",
    "Stream",
    "TransientError",
    "Window",
]
