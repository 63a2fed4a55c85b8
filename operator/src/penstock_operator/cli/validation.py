"""`penstock validate`: what the API server would refuse, found before it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from penstock_sdk.manifest import manifest_problems

from penstock_operator.controller.wanted import Stalled, check_document, unknown_annotations
from penstock_operator.embedded.folder import OURS, FolderError, read_folder


def examined(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Return the files that the paths name, a folder naming all YAML files below it, and what is wrong with them."""
    files, found = list[Path](), list[str]()
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        below = sorted(each for pattern in ("*.yaml", "*.yml") for each in path.rglob(pattern))
        files += below
        found += [] if below else [f"{path}: there is no YAML file below it"]
        found += _folder_problems(path)
    found += [f"{path}: {problem}" for path in files for problem in _file_problems(path)]
    return files, list(dict.fromkeys(found))


def _folder_problems(path: Path) -> list[str]:
    """Return what `penstock up` has against a folder as a whole, such as a name that is there twice."""
    try:
        read_folder(path)
    except FolderError as error:
        return [str(error)]
    return []


def _file_problems(path: Path) -> Iterator[str]:
    try:
        documents = list(yaml.safe_load_all(path.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        yield f"not YAML: {error}"
        return
    for document in documents:
        if document is not None:
            yield from _document_problems(document)


def _document_problems(document: object) -> list[str]:
    if not isinstance(document, dict) or "kind" not in document:
        return manifest_problems(document)
    if document["kind"] not in OURS:
        return []
    metadata = document.get("metadata")
    unknown = unknown_annotations(document) if isinstance(metadata, dict) else []
    try:
        check_document(document)
    except Stalled as stalled:
        return [*unknown, *stalled.finding.message.split("; ")]
    return unknown
