"""The commit manifest: the document beside a run's objects that lists them, with the state before and after the run.

`runs/commit_store.py` makes it from the registry when a run has ended. `restore/` reads it to bring an older registry forward.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from penstock_sdk.json_types import JsonObject, JsonSchema, JsonValue
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from penstock_operator.bronze.keys import commit_key
from penstock_operator.ids import (
    AttemptNumber,
    ConnectionName,
    ConnectionUid,
    DefinitionName,
    Namespace,
    NamespaceUid,
    RunId,
    StreamName,
)
from penstock_operator.resources.models import ConnectionSpec
from penstock_operator.runs.attempt_store import RunPhase
from penstock_operator.runs.run_store import Trigger

VERSION: Final = 2
"""Version of the format. Version 1 has no states, so a registry cannot be brought forward by it."""
Moment = Annotated[datetime, PlainSerializer(datetime.isoformat)]


class UnreadableManifestError(ValueError):
    """A document is not a commit manifest that this release can read; the message says why."""


class _ManifestModel(BaseModel):
    """Base of the models of a manifest: frozen; a field that a newer release adds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, use_attribute_docstrings=True)


class ManifestObject(_ManifestModel):
    """A committed object."""

    key: str
    stream: StreamName
    generation: int
    attempt: AttemptNumber
    sequence: int
    checkpoint: int
    records: int
    deletes: int | None = None
    """None where an older SDK wrote the object, which does not count operations."""
    bytes: int
    sha256: str
    schema_version: int


class EarlierState(_ManifestModel):
    """The state of a stream before the run."""

    cursor: JsonValue
    checkpoint: int
    generation: int


class ManifestState(_ManifestModel):
    """The state that a run committed last of a stream."""

    stream: StreamName
    cursor: JsonValue
    state_version: int
    checkpoint: int
    generation: int
    attempt: AttemptNumber
    done: bool
    before: EarlierState | None


class ManifestSchema(_ManifestModel):
    """A version of a stream's schema that the run was the first to use."""

    stream: StreamName
    version: int
    fingerprint: str
    schema_: JsonSchema = Field(alias="schema")
    primary_key: list[str]
    cursor_field: str | None
    modes: list[str]
    pii: list[str]
    display_name: str | None
    names: list[str]
    pii_suggested: dict[str, str]


class ManifestWindow(_ManifestModel):
    """The span of time that the run read again."""

    start: Moment
    end: Moment


class RegistryRecord(_ManifestModel):
    """The run and its connection as the registry holds them; nothing of it is needed to read the objects."""

    installation: str
    connection_uid: ConnectionUid
    namespace_uid: NamespaceUid | None
    first_generation: int
    connector: JsonObject
    bronze: JsonObject
    trigger: Trigger
    token: str | None
    attempt: AttemptNumber
    reason: str | None
    error_class: str | None
    message: str
    scheduled_at: Moment | None
    created_at: Moment
    started_at: Moment | None

    @property
    def spec(self) -> ConnectionSpec:
        """The part of the connection's spec that the manifest holds: the connector and the Bronze settings."""
        return ConnectionSpec.parse({"connector": self.connector, "bronze": self.bronze})


class CommitManifest(_ManifestModel):
    """The commit manifest of a run that has ended."""

    version: Literal[2] = VERSION
    run: RunId
    phase: RunPhase
    tenant: Namespace
    connection: ConnectionName
    definition: DefinitionName
    records: int
    deletes: int | None = None
    bytes: int
    finished_at: Moment
    objects: list[ManifestObject]
    window: ManifestWindow | None = None
    """The span of time that was read again; None for every other run."""
    rejected: list[ManifestObject]
    states: list[ManifestState]
    schemas: list[ManifestSchema]
    registry: RegistryRecord

    def object_keys(self) -> set[str]:
        """Return the keys of all objects that it lists."""
        return {written.key for written in (*self.objects, *self.rejected)}

    def key(self, prefix: str) -> str:
        """Return the manifest's key in the bucket."""
        return commit_key(prefix, self.tenant, self.connection, self.run)

    def document(self) -> dict[str, Any]:
        """Return the manifest as JSON; `window` is left out where there is none."""
        return self.model_dump(by_alias=True, exclude={} if self.window else {"window"})


class ObjectKey(_ManifestModel):
    """The key of a committed object, which is all that a manifest of version 1 is read for."""

    key: str


class OldCommitManifest(_ManifestModel):
    """A commit manifest of version 1: its objects are committed, and its states are not known."""

    version: Literal[1] = 1
    run: RunId
    objects: list[ObjectKey]
    rejected: list[ObjectKey]

    def object_keys(self) -> set[str]:
        """Return the keys of all objects that it lists."""
        return {written.key for written in (*self.objects, *self.rejected)}


def parse_commit_manifest(body: bytes, run: RunId) -> CommitManifest | OldCommitManifest:
    """Return the commit manifest of a run. Raises UnreadableManifestError."""
    try:
        document = json.loads(body)
    except ValueError:
        raise UnreadableManifestError("it is not JSON") from None
    version = document.get("version", 1) if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise UnreadableManifestError("it is not a commit manifest")
    if version > VERSION:
        raise UnreadableManifestError(
            f"a newer version of Penstock wrote it (manifest version {version}): use that one"
        )
    model = OldCommitManifest if version == 1 else CommitManifest
    try:
        manifest = model.model_validate(document)
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"]))
        raise UnreadableManifestError(f"{field} is missing or of another type") from None
    if manifest.run != run:
        raise UnreadableManifestError("it is of another run than its name says")
    return manifest
