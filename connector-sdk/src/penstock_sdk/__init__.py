"""The contract of a Penstock connector.

Everything that a connector's author needs is here. `penstock_sdk.manifest` holds the model of a manifest,
`penstock_sdk.protocol` the messages of the run API. `python -m penstock_sdk` runs a connector inside a pod.
"""

from __future__ import annotations

from penstock_sdk._secret import Secret
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
    "Secret",
    "Sink",
    "SourceContractError",
    "Stream",
    "TransientError",
    "Window",
]
