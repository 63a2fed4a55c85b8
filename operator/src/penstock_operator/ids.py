"""Identifiers: types that keep a connection's uid, a run's id and other texts apart, and the maker of run ids."""

from __future__ import annotations

import secrets
import time
from typing import NewType

Namespace = NewType("Namespace", str)
"""Name of a namespace, which is the tenant."""
NamespaceUid = NewType("NamespaceUid", str)
ConnectionUid = NewType("ConnectionUid", str)
"""`metadata.uid` of a TenantConnection."""
ConnectionName = NewType("ConnectionName", str)
"""`metadata.name` of a TenantConnection, unique in its namespace."""
DefinitionUid = NewType("DefinitionUid", str)
"""`metadata.uid` of a ConnectorDefinition."""
DefinitionName = NewType("DefinitionName", str)
RunId = NewType("RunId", str)
"""RUN_ID_LENGTH hex digits that sort by the time at which the run was made."""
AttemptNumber = NewType("AttemptNumber", int)
"""Number of an attempt of its run, from 1; it only grows, and is the fencing token."""
StreamName = NewType("StreamName", str)
AlertId = NewType("AlertId", int)
StateChangeId = NewType("StateChangeId", int)
AuditEventId = NewType("AuditEventId", int)
KeyId = NewType("KeyId", str)
"""Id of a key that credentials are encrypted with."""
ActorUid = NewType("ActorUid", str)
"""Uid of a pod or of a user that acts."""
ObjectId = NewType("ObjectId", str)
"""Id of the object of an audit event: of a run, an attempt (`run/attempt`), an alert."""

RUN_ID_LENGTH = 22


def new_run_id() -> RunId:
    """Return RUN_ID_LENGTH hex digits that sort by the millisecond in which they were made."""
    return RunId(f"{int(time.time() * 1000):012x}{secrets.token_hex(5)}")
