"""Documents of the two kinds as typed values. A document is parsed once, where it enters: a list, a watch, a folder, a file.

Parsing never fails, because one bad document of a list must not hide the others. `problems` says what is wrong.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar

from penstock_sdk.manifest import manifest_problems
from pydantic import BaseModel, ValidationError

from penstock_operator.ids import ConnectionName, ConnectionUid, DefinitionName, DefinitionUid, Namespace
from penstock_operator.resources.crds import defaulted, resource_problems
from penstock_operator.resources.models import (
    ANNOTATIONS,
    GROUP,
    NO_SPEC,
    ConnectionSpec,
    ConnectionStatus,
    DefinitionSpec,
    DefinitionStatus,
    Kind,
)
from penstock_operator.resources.storable import storage_problems
from penstock_operator.resources.stored import parse_stored

Document = dict[str, Any]
"""A resource as JSON has it. Only this module, and what reads or writes the API server and files, handles documents."""
ResourceKey = tuple[str, str, str]
"""Kind, namespace and name of a resource; the namespace of a definition is empty."""
ResourceStatus = ConnectionStatus | DefinitionStatus


@dataclass(frozen=True, slots=True)
class Metadata:
    """The part of a resource's metadata that Penstock reads."""

    name: str
    namespace: Namespace
    """Empty for a definition."""
    uid: str
    generation: int
    version: str | None
    """The resourceVersion; None in a folder, whose resources have no versions."""
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    managers: Mapping[str, str]
    """By annotation of ours: the field manager that set it, such as kubectl-annotate, where the API server tells."""
    problems: tuple[str, ...]
    """Annotations of ours that cannot be used, each with the remedy."""

    @classmethod
    def parse(cls, metadata: object) -> Self:
        """Return the metadata of a document."""
        known: Document = metadata if isinstance(metadata, dict) else {}
        given = known.get("annotations")
        annotations: Document = given if isinstance(given, dict) else {}
        return cls(
            name=str(known.get("name") or ""),
            namespace=Namespace(str(known.get("namespace") or "")),
            uid=str(known.get("uid") or ""),
            generation=known.get("generation", 1),
            version=known.get("resourceVersion"),
            labels=_texts(known.get("labels")),
            annotations=_texts(annotations),
            managers=_managers(known.get("managedFields"), annotations),
            problems=tuple(_annotation_problems(annotations)),
        )


def _texts(values: object) -> dict[str, str]:
    if not isinstance(values, dict):
        return {}
    return {str(key): str(value) for key, value in values.items() if value is not None}


def _annotation_problems(annotations: Document) -> list[str]:
    ours = {key: value for key, value in annotations.items() if str(key).startswith(f"{GROUP}/")}
    return storage_problems(ours, "metadata.annotations")


def _managers(managed_fields: object, annotations: Document) -> dict[str, str]:
    found = dict[str, str]()
    for entry in managed_fields if isinstance(managed_fields, list) else []:
        fields = _at(entry, "fieldsV1", "f:metadata", "f:annotations")
        for annotation in ANNOTATIONS:
            if annotation in annotations and _at(fields, f"f:{annotation}") is not None:
                found.setdefault(annotation, str(entry.get("manager", "unknown")))
    return found


def _at(value: Any, *path: str) -> Any:
    """Return the value at a path of keys; None where there is no such value."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


@dataclass(frozen=True)
class Resource:
    """Base of the two kinds. It keeps the document that it was parsed from, to check it and to patch its status."""

    KIND: ClassVar[Kind]
    metadata: Metadata
    _document: Document = field(repr=False)

    @classmethod
    def parse(cls, document: Document) -> Self:
        """Return the resource that a document describes."""
        raise NotImplementedError

    @property
    def key(self) -> ResourceKey:
        """Kind, namespace and name."""
        return self.KIND, self.metadata.namespace, self.metadata.name

    @cached_property
    def problems(self) -> list[str]:
        """What the API server would refuse of the spec. It may have taken the document under an older schema."""
        return storage_problems(self._document.get("spec"), "spec") or resource_problems(self._document)

    def shows(self, status: ResourceStatus) -> bool:
        """Return True if the document has exactly this status."""
        return status_document(status) == (self._document.get("status") or {})

    def status_patch(self, status: ResourceStatus) -> Document:
        """Return the body that replaces the status of this version of the resource by another one."""
        patch = merge_patch(self._document.get("status") or {}, status_document(status))
        return {"metadata": {"resourceVersion": self.metadata.version}, "status": patch}

    def with_status(self, status: ResourceStatus, version: str | None) -> Self:
        """Return the resource as it is once the status is written, which gave it a new version."""
        written = {**self._document, "status": status_document(status)}
        return replace(self.parse(written), metadata=replace(self.metadata, version=version))


@dataclass(frozen=True)
class Connection(Resource):
    """A TenantConnection."""

    KIND: ClassVar[Kind] = "TenantConnection"
    spec: ConnectionSpec
    """The spec with the CRD's defaults. A value that is not valid counts as left out; `problems` names it."""
    status: ConnectionStatus

    @classmethod
    def parse(cls, document: Document) -> Self:
        """Return the connection that a document describes."""
        bad = storage_problems(document.get("spec"), "spec")
        return cls(
            metadata=Metadata.parse(document.get("metadata")),
            _document=document,
            spec=NO_SPEC if bad else ConnectionSpec.parse(_spec_of(cls.KIND, document)),
            status=_status_of(ConnectionStatus, document),
        )

    @cached_property
    def problems(self) -> list[str]:
        """What is wrong with the spec, CA certificates that cannot be read among it."""
        found = storage_problems(self._document.get("spec"), "spec") or resource_problems(self._document)
        return found or ca_problems(self.spec.tls.ca_certificates if self.spec.tls else "")

    @property
    def uid(self) -> ConnectionUid:
        """`metadata.uid`."""
        return ConnectionUid(self.metadata.uid)

    @property
    def namespace(self) -> Namespace:
        """`metadata.namespace`."""
        return self.metadata.namespace

    @property
    def name(self) -> ConnectionName:
        """`metadata.name`."""
        return ConnectionName(self.metadata.name)


@dataclass(frozen=True)
class Definition(Resource):
    """A ConnectorDefinition."""

    KIND: ClassVar[Kind] = "ConnectorDefinition"
    spec: DefinitionSpec | None
    """None if it is not valid; `problems` says why."""
    status: DefinitionStatus

    @classmethod
    def parse(cls, document: Document) -> Self:
        """Return the definition that a document describes."""
        return cls(
            metadata=Metadata.parse(document.get("metadata")),
            _document=document,
            spec=_definition_spec(document),
            status=_status_of(DefinitionStatus, document),
        )

    @cached_property
    def problems(self) -> list[str]:
        """What is wrong with the spec, the manifest's configSchema among it."""
        found = storage_problems(self._document.get("spec"), "spec") or resource_problems(self._document)
        found = found or manifest_problems(self._document["spec"]["manifest"], "spec.manifest")
        return found or ([] if self.spec else ["spec: Invalid value: this release cannot read it"])

    @property
    def uid(self) -> DefinitionUid:
        """`metadata.uid`."""
        return DefinitionUid(self.metadata.uid)

    @property
    def name(self) -> DefinitionName:
        """`metadata.name`."""
        return DefinitionName(self.metadata.name)


def parse_resource(document: Document) -> Connection | Definition:
    """Return the resource that a document of either kind describes."""
    return Definition.parse(document) if document["kind"] == Definition.KIND else Connection.parse(document)


def ca_problems(text: str) -> list[str]:
    """Return what is wrong with the CA certificates of a source; an empty text is none, and right."""
    if not text:
        return []
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        remedy = "copy each as a whole, from '-----BEGIN CERTIFICATE-----' to '-----END CERTIFICATE-----'"
        return [f"spec.tls.caCertificates: Invalid value: a certificate in it cannot be read; {remedy}"]
    return []


def _spec_of(kind: Kind, document: Document) -> object:
    return defaulted({**document, "kind": kind}).get("spec")


def _definition_spec(document: Document) -> DefinitionSpec | None:
    if storage_problems(document.get("spec"), "spec"):
        return None
    try:
        return DefinitionSpec.model_validate(_spec_of(Definition.KIND, document))
    except ValidationError:
        return None


Status = TypeVar("Status", bound=BaseModel)


def _status_of(model: type[Status], document: Document) -> Status:
    """Return the status; a value that another release wrote and this one does not know counts as left out."""
    return parse_stored(model, document.get("status"))


def status_document(status: ResourceStatus) -> Document:
    """Return a status as the API server holds it: the fields that were set, None being a field that is not there."""
    return status.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)


def merge_patch(before: Document, after: Document) -> Document:
    """Return the JSON merge patch (RFC 7396) that makes `after` of `before`; no field of `after` is None.

    A merge keeps each field that the patch does not name, also inside of an object: a run that replaces another in
    `lastRun` would keep the end of the one before.
    """
    patch: Document = {key: None for key in before if key not in after}
    for key, value in after.items():
        known = before.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            inner = merge_patch(known, value)
            if inner:
                patch[key] = inner
        elif key not in before or known != value:
            patch[key] = value
    return patch
