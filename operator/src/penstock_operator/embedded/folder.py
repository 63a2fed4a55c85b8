"""A folder in place of an API server: the same documents that `kubectl apply` takes, one or many in each YAML file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from penstock_operator.controller.identity import one_namespace
from penstock_operator.controller.resource_client import R
from penstock_operator.embedded.documents import FolderError, LocatedDocument, documents_of, yaml_files
from penstock_operator.ids import NamespaceUid
from penstock_operator.resources.documents import Document, Resource, ResourceKey, ResourceStatus, status_document
from penstock_operator.resources.models import API_VERSION, GROUP
from penstock_operator.resources.spelling import nearest_word

OURS = ("ConnectorDefinition", "TenantConnection")
KINDS = (*OURS, "Secret", "List")
PASSED_OVER = ("Namespace",)
"""Kinds that files for a cluster may have and a folder ignores: a folder has every namespace."""
SUBDOMAIN = re.compile("[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
NAMESPACE = uuid.UUID("6b1e7f0e-8a5d-4b7c-9d59-8f0a4d7d6c11")


@dataclass
class FolderContent:
    """The documents and Secrets of a folder."""

    resources: dict[ResourceKey, Document] = field(default_factory=dict)
    secrets: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict, repr=False)


def read_folder(directory: Path) -> FolderContent:
    """Read every YAML file below the directory. Raises FolderError for a file that is not valid, and for a resource that is there twice."""
    content, seen = FolderContent(), dict[ResourceKey, str]()
    for located in (located for path in yaml_files(directory) for located in documents_of(path)):
        key = key_at(located)
        if key in seen:
            message = (
                f"{located.location}: {'/'.join(filter(None, key))} is in {seen[key]} too; a name can be used once"
            )
            raise FolderError(message)
        seen[key] = located.location
        if key[0] == "Secret":
            content.secrets[key[1:]] = secret_values(located)
        elif key[0] in OURS:
            content.resources[key] = located.document
    return content


def check_kind(located: LocatedDocument) -> str:
    """Return the kind of a document. Raises FolderError for an unknown kind; the message names the nearest known one."""
    document = located.document
    if not isinstance(document, dict):
        what = "a list" if isinstance(document, list) else "a single value"
        raise FolderError(f"{located.location}: is {what}; a document needs apiVersion, kind and metadata.name")
    kind = document.get("kind")
    if not isinstance(kind, str) or not kind:
        raise FolderError(f"{located.location}: kind: a document needs apiVersion, kind and metadata.name")
    meta = document.get("metadata")
    for name, value in (
        ("metadata", meta),
        ("metadata.annotations", meta.get("annotations") if isinstance(meta, dict) else {}),
    ):
        if value is not None and not isinstance(value, dict):
            raise FolderError(f"{located.location}: {name}: must be a mapping")
    if kind in KINDS or kind in PASSED_OVER:
        return kind
    near = nearest_word(kind, KINDS)
    hint = f"did you mean {near}?" if near else "move it out of the folder;"
    raise FolderError(f"{located.location}: kind: {kind[:100]!r} is not known; {hint} the kinds are {', '.join(KINDS)}")


def key_at(located: LocatedDocument) -> ResourceKey:
    """Return kind, namespace and name of a document. Raises FolderError."""
    kind, document, location = check_kind(located), located.document, located.location
    meta = document.get("metadata")
    if not isinstance(meta, dict) or not meta.get("name"):
        message = f"{location}: metadata.name: a document needs apiVersion, kind and metadata.name"
        raise FolderError(message)
    if kind in OURS and document.get("apiVersion") != f"{GROUP}/{API_VERSION}":
        message = (
            f"{location}: apiVersion of a {kind} must be {GROUP}/{API_VERSION}, not {document.get('apiVersion')!r}"
        )
        raise FolderError(message)
    for part in ("name", "namespace"):
        if kind in OURS and not SUBDOMAIN.fullmatch(str(meta.get(part) or "default")):
            message = (
                f"{location}: metadata.{part}: Invalid value: a lowercase RFC 1123 subdomain must consist of lower case"
                " alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
            )
            raise FolderError(message)
    if kind == "TenantConnection" and not meta.get("namespace"):
        meta["namespace"] = "default"
    if kind == "ConnectorDefinition":
        meta.pop("namespace", None)
    namespace = meta.get("namespace") or ("" if kind == "ConnectorDefinition" else "default")
    return kind, str(namespace), str(meta["name"])


def secret_values(located: LocatedDocument) -> dict[str, str]:
    """Return the values of a Secret. Raises FolderError, whose message never holds a value."""
    document, location = located.document, located.location
    for part in ("stringData", "data"):
        if not isinstance(document.get(part) or {}, dict):
            raise FolderError(f"{location}: {part}: must be a mapping of keys to text")
    values = dict[str, str]()
    for key, value in (document.get("stringData") or {}).items():
        if not isinstance(value, str):
            raise FolderError(f"{location}: stringData.{key}: must be text; write it in quotes")
        values[key] = value
    for key, encoded in (document.get("data") or {}).items():
        try:
            decoded = base64.b64decode(encoded, validate=True)
        except (ValueError, TypeError):
            message = f"{location}: data.{key} of the Secret is not base64; use stringData for plain text"
            raise FolderError(message) from None
        try:
            values.setdefault(key, decoded.decode())
        except UnicodeDecodeError:
            raise FolderError(f"{location}: data.{key} of the Secret is not text in UTF-8, once decoded") from None
    return values


class FolderResources:
    """The resource client of a folder. Statuses are kept in memory and rebuilt from the registry."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.statuses: dict[ResourceKey, ResourceStatus] = {}
        self._content = FolderContent()
        self._generations: dict[ResourceKey, tuple[str, int]] = {}

    def refresh(self) -> bool:
        """Read the folder again, and return True if it changed."""
        before = self._content
        self._content = read_folder(self.directory)
        return before != self._content

    def secret(self, namespace: str, name: str) -> dict[str, str] | None:
        """Return a Secret's values."""
        return self._content.secrets.get((namespace, name))

    async def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """Return one resource with the fields that an API server would have added."""
        document = self._content.resources.get((kind.KIND, namespace, name))
        return kind.parse(self._admitted((kind.KIND, namespace, name), document)) if document else None

    async def read_all(self, kind: type[R]) -> list[R]:
        """Return all resources of a kind."""
        found = self._content.resources.items()
        return [kind.parse(self._admitted(key, document)) for key, document in found if key[0] == kind.KIND]

    async def pages(self, kind: type[R]) -> AsyncIterator[list[R]]:
        """Yield all resources of a kind at once."""
        yield await self.read_all(kind)

    async def namespace_uid(self, namespace: str) -> NamespaceUid | None:
        """Return a uid for a namespace: a folder has one namespace of each name, ever."""
        return await one_namespace(namespace)

    async def write_status(self, resource: Resource, status: ResourceStatus) -> None:
        """Keep the status."""
        self.statuses[resource.key] = status

    def _admitted(self, key: ResourceKey, document: Document) -> Document:
        uid = str(uuid.uuid5(NAMESPACE, "/".join(key)))
        meta = {**document["metadata"], "uid": uid, "generation": self._generation(key, document)}
        result = {**document, "metadata": meta}
        result.pop("status", None)  # as an API server does with an applied one
        if key in self.statuses:
            result["status"] = status_document(self.statuses[key])
        return result

    def _generation(self, key: ResourceKey, document: Document) -> int:
        digest = hashlib.sha256(json.dumps(document.get("spec"), sort_keys=True, default=str).encode()).hexdigest()
        known, number = self._generations.get(key, (digest, 1))
        number += known != digest
        self._generations[key] = (digest, number)
        return number
