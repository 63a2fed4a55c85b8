"""A folder in place of an API server: the same documents that `kubectl apply` takes, one or many in each YAML file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from penstock_operator.controller.identity import one_namespace
from penstock_operator.controller.resources import Document, Page, key_of
from penstock_operator.resources.models import API_VERSION, GROUP, Kind

OURS = ("ConnectorDefinition", "TenantConnection")
SUBDOMAIN = re.compile("[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
NAMESPACE = uuid.UUID("6b1e7f0e-8a5d-4b7c-9d59-8f0a4d7d6c11")


class FolderError(Exception):
    """A file of the folder cannot be used; the message names the file and the remedy."""


@dataclass
class Content:
    """What the folder holds."""

    resources: dict[tuple[str, str, str], Document] = field(default_factory=dict)
    secrets: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict, repr=False)


def read_folder(directory: Path) -> Content:
    """Read every YAML file below the directory. Raises FolderError for what is no document, or is there twice."""
    content, seen = Content(), dict[tuple[str, str, str], Path]()
    for path in sorted(p for pattern in ("*.yaml", "*.yml") for p in directory.rglob(pattern)):
        for document in _documents(path):
            key = _key(document, path)
            if key in seen:
                message = f"{path}: {'/'.join(filter(None, key))} is in {seen[key]} too; a name can be used once"
                raise FolderError(message)
            seen[key] = path
            if key[0] == "Secret":
                content.secrets[key[1:]] = _secret_values(document, path)
            elif key[0] in OURS:
                content.resources[key] = document
    return content


def _documents(path: Path) -> Iterator[Document]:
    try:
        documents = list(yaml.safe_load_all(path.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        message = f"{path}: not YAML: {error}"
        raise FolderError(message) from None
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "List":
            yield from document.get("items", [])
        elif document is not None:
            yield document


def _key(document: Document, path: Path) -> tuple[str, str, str]:
    if (
        not isinstance(document, dict)
        or not isinstance(document.get("metadata"), dict)
        or not document["metadata"].get("name")
    ):
        message = f"{path}: a document needs apiVersion, kind and metadata.name"
        raise FolderError(message)
    kind = str(document.get("kind", ""))
    if kind in OURS and document.get("apiVersion") != f"{GROUP}/{API_VERSION}":
        message = f"{path}: apiVersion of a {kind} must be {GROUP}/{API_VERSION}, not {document.get('apiVersion')!r}"
        raise FolderError(message)
    meta = document["metadata"]
    for part in ("name", "namespace"):
        if kind in OURS and not SUBDOMAIN.fullmatch(str(meta.get(part) or "default")):
            message = (
                f"{path}: metadata.{part}: Invalid value: a lowercase RFC 1123 subdomain must consist of lower case"
                " alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
            )
            raise FolderError(message)
    if kind == "TenantConnection":
        meta.setdefault("namespace", "default")
    if kind == "ConnectorDefinition":
        meta.pop("namespace", None)
    namespace = meta.get("namespace", "" if kind == "ConnectorDefinition" else "default")
    return kind, str(namespace), str(meta["name"])


def _secret_values(document: Document, path: Path) -> dict[str, str]:
    values = {key: str(value) for key, value in (document.get("stringData") or {}).items()}
    for key, encoded in (document.get("data") or {}).items():
        try:
            values.setdefault(key, base64.b64decode(encoded, validate=True).decode())
        except ValueError:
            message = f"{path}: data.{key} of the Secret is not base64; use stringData for plain text"
            raise FolderError(message) from None
    return values


class FolderResources:
    """The resource client over a folder. Status is kept in memory: it is rebuilt from the registry."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.statuses: dict[tuple[str, str, str], Document] = {}
        self._content = Content()
        self._generations: dict[tuple[str, str, str], tuple[str, int]] = {}

    def refresh(self) -> bool:
        """Read the folder again, and say whether it changed."""
        before = self._content
        self._content = read_folder(self.directory)
        return before != self._content

    def secret(self, namespace: str, name: str) -> dict[str, str] | None:
        """Return a Secret's values."""
        return self._content.secrets.get((namespace, name))

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return one document with what an API server would have added."""
        document = self._content.resources.get((kind, namespace, name))
        return self._admitted(document) if document else None

    async def list(self, kind: Kind) -> list[Document]:
        """Return all documents of a kind."""
        return [self._admitted(each) for key, each in self._content.resources.items() if key[0] == kind]

    async def pages(self, kind: Kind) -> AsyncIterator[Page]:
        """Yield all documents of a kind at once."""
        yield await self.list(kind)

    async def namespace_uid(self, namespace: str) -> str | None:
        """Return what stands for the uid of a namespace: a folder has one of each name, ever."""
        return await one_namespace(namespace)

    async def write_status(self, document: Document, status: Document) -> None:
        """Keep the status."""
        self.statuses[key_of(document)] = status

    def _admitted(self, document: Document) -> Document:
        key = key_of(document)
        uid = str(uuid.uuid5(NAMESPACE, "/".join(key)))
        meta = {**document["metadata"], "uid": uid, "generation": self._generation(key, document)}
        result: dict[str, Any] = {**document, "metadata": meta}
        result.pop("status", None)  # as an API server does with an applied one
        if key in self.statuses:
            result["status"] = self.statuses[key]
        return result

    def _generation(self, key: tuple[str, str, str], document: Document) -> int:
        digest = hashlib.sha256(json.dumps(document.get("spec"), sort_keys=True, default=str).encode()).hexdigest()
        known, number = self._generations.get(key, (digest, 1))
        number += known != digest
        self._generations[key] = (digest, number)
        return number
