"""The manifests of definitions, read and parsed once, however many connections use them."""

from __future__ import annotations

from penstock_sdk.manifest import Manifest

from penstock_operator.definitions import manifest_of
from penstock_operator.registry.database import DatabaseConnection, Row

LIMIT = 500
_parsed: dict[str, Manifest] = {}


async def manifest_for(db: DatabaseConnection, definition: Row) -> Manifest:
    """Return the manifest of a row of `versions_of`, which has its digest: what has the same digest is the same."""
    digest = definition["digest"]
    if digest not in _parsed:
        if len(_parsed) >= LIMIT:
            _parsed.clear()
        _parsed[digest] = Manifest.model_validate(await manifest_of(db, definition["uid"]))
    return _parsed[digest]
