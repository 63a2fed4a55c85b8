"""`penstock validate`: what the API server would refuse, and what only the definition can tell, before they are asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from penstock_sdk.manifest import Manifest, manifest_problems

from penstock_operator.controller.desired import (
    Stalled,
    check_against,
    check_resource,
    no_version_matches,
    unknown_annotations,
)
from penstock_operator.embedded.documents import FolderError, LocatedDocument, documents_of, yaml_files
from penstock_operator.embedded.folder import OURS, check_kind, key_at, read_folder, secret_values
from penstock_operator.ids import DefinitionName
from penstock_operator.resources.documents import Connection, Definition, parse_resource
from penstock_operator.resources.models import ConnectionSpec, DefinitionSpec
from penstock_operator.resources.versions import selectable


@dataclass(frozen=True, slots=True)
class ValidDefinition:
    """A definition without mistakes."""

    name: DefinitionName
    spec: DefinitionSpec


@dataclass
class ValidationContext:
    """The valid definitions by connector and method, and by version; and the keys of Secrets by namespace and name."""

    definitions: dict[tuple[str, str], dict[str, ValidDefinition]] = field(default_factory=dict)
    secret_keys: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def add(self, located: LocatedDocument) -> None:
        """Take up a definition or a Secret, unless something is wrong with it, which is found elsewhere."""
        try:
            kind, namespace, name = key_at(located)
            if kind == "Secret":
                self.secret_keys[namespace, name] = set(secret_values(located))
            elif kind == "ConnectorDefinition":
                definition = Definition.parse(located.document)
                check_resource(definition)
                if spec := definition.spec:
                    versions = self.definitions.setdefault((spec.manifest.name, spec.manifest.method), {})
                    versions[spec.manifest.version] = ValidDefinition(definition.name, spec)
        except (FolderError, Stalled):
            return


def examined(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Return the files that the paths name, a folder naming all YAML files below it, and what is wrong with them."""
    files, found = list[Path](), list[str]()
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        try:
            below = yaml_files(path)
            files += below
            found += [] if below else [f"{path}: there is no YAML file below it"]
            read_folder(path)
        except FolderError as error:
            found.append(str(error))
    context = _context_of(files)
    found += [problem for path in files for problem in _file_problems(path, context)]
    return files, list(dict.fromkeys(found))


def _context_of(files: list[Path]) -> ValidationContext:
    """Return what is in the files, and in those of their folders."""
    context = ValidationContext()
    siblings = {sibling for file in files for pattern in ("*.yaml", "*.yml") for sibling in file.parent.glob(pattern)}
    for path in sorted({*files, *siblings}):
        try:
            for located in documents_of(path):
                context.add(located)
        except FolderError:
            continue
    return context


def _file_problems(path: Path, context: ValidationContext) -> Iterator[str]:
    try:
        for located in documents_of(path):
            yield from (f"{located.location}: {problem}" for problem in _document_problems(located, context))
    except FolderError as error:
        yield str(error)


def _document_problems(located: LocatedDocument, context: ValidationContext) -> Iterator[str]:
    document = located.document
    if not isinstance(document, dict) or "kind" not in document:
        yield from manifest_problems(document)
        return
    kind = check_kind(located)
    if kind == "Secret":
        key_at(located)
        secret_values(located)
    if kind not in OURS:
        return
    if not isinstance(document.get("metadata"), dict):
        yield "metadata.name: a document needs apiVersion, kind and metadata.name"
        return
    resource = parse_resource(document)
    yield from unknown_annotations(resource.metadata)
    try:
        check_resource(resource)
    except Stalled as stalled:
        yield from stalled.finding.message.split("; ")
        return
    try:
        if isinstance(resource, Connection):
            _check_in_context(resource, context)
    except Stalled as stalled:
        yield stalled.finding.message


def _check_in_context(connection: Connection, context: ValidationContext) -> None:
    """Check a connection against the definition that it selects and its Secret, where these are there. Raises Stalled."""
    spec = connection.spec
    offers = context.definitions.get((spec.connector.name, spec.connector.method))
    if not offers:
        return
    stages = {version: offer.spec.stage for version, offer in offers.items()}
    versions = spec.connector.version
    chosen = selectable(stages, versions)
    if not chosen:
        raise Stalled("NoVersionInRange", no_version_matches(stages, versions))
    definition = offers[chosen[0]]
    check_against(spec, definition.name, definition.spec.manifest)
    _check_modes(spec, definition.spec.manifest)
    reference = spec.secret_ref.name if spec.secret_ref else None
    held = context.secret_keys.get((connection.namespace or "default", reference or ""))
    if reference and held is not None:
        _check_keys(reference, held, definition.spec.manifest)


def _check_modes(spec: ConnectionSpec, manifest: Manifest) -> None:
    """Check each stream's mode, where the manifest lists the streams. Raises Stalled."""
    listed = {stream.name: stream.modes for stream in manifest.streams.list_}
    for index, stream in enumerate(spec.streams):
        if not listed:
            return
        if stream.name not in listed:
            known = ", ".join(listed)
            raise Stalled(
                "InvalidSpec", f"spec.streams[{index}].name: {stream.name!r} is no stream; there are: {known}"
            )
        if stream.mode not in listed[stream.name]:
            modes = ", ".join(listed[stream.name])
            raise Stalled("InvalidSpec", f"spec.streams[{index}].mode: {stream.name} can only be read {modes}")


def _check_keys(name: str, held: set[str], manifest: Manifest) -> None:
    """Check that a Secret has each key that the connector requires. Raises Stalled."""
    wanted = manifest.credentials()
    missing = [key for key, required in wanted.items() if required and key not in held]
    if missing:
        message = f"spec.secretRef: the Secret {name} lacks {', '.join(missing)}, which the connector requires"
        raise Stalled("SecretRequired", message)
    if wanted and not held & set(wanted):
        raise Stalled("SecretRequired", f"spec.secretRef: the Secret {name} has none of: {', '.join(wanted)}")
