"""`penstock bronze verify`: committed objects compared with the bucket.

Sizes and checksums are those of the runs' commit manifests, which are in the bucket too. The read API does not show checksums.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

import zstandard
from botocore.exceptions import BotoCoreError, ClientError

from penstock_operator.api.models import ObjectView, RunDetailView
from penstock_operator.bronze.keys import commit_key
from penstock_operator.bronze.store import BronzeStore, ObjectContent
from penstock_operator.cli.api_session import ApiSession
from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.ids import ConnectionName, Namespace, RunId
from penstock_operator.runs.commit_manifest import (
    ManifestObject,
    OldCommitManifest,
    UnreadableManifestError,
    parse_commit_manifest,
)

BATCH = 200
"""Objects that are compared at once."""


def fetched(store: BronzeStore, key: str) -> bytes | str:
    """Return an object's bytes, or why the bucket does not give them."""
    try:
        return store.read(key)
    except ClientError as error:
        reason = error.response.get("Error", {})
        return f"the bucket does not give it: {reason.get('Code', 'an error')}: {reason.get('Message', 'no message')}"
    except BotoCoreError as error:
        return f"the bucket does not give it: {error}"


async def of_run(api: ApiSession, store: BronzeStore, run: str) -> list[ManifestObject]:
    """Return the objects of a run's commit manifest."""
    found = await api.get(RunDetailView, f"/runs/{run}")
    objects = await _listed_objects(store, found.namespace, found.name, found.id)
    if isinstance(objects, str):
        raise CommandError(f"{objects}; a run that committed nothing and did not succeed has no commit manifest")
    return list(objects.values())


async def of_listing(
    store: BronzeStore, objects: AsyncIterable[ObjectView]
) -> tuple[list[ManifestObject], dict[str, str]]:
    """Return what commit manifests say of the listed objects; and the objects of which none says anything, each with why."""
    entries: list[ManifestObject] = []
    unlisted: dict[str, str] = {}
    run: RunId | None = None
    found: dict[str, ManifestObject] | str = ""
    async for listed in objects:
        if listed.run_id != run:
            run, found = listed.run_id, await _listed_objects(store, listed.namespace, listed.name, listed.run_id)
        entry = found if isinstance(found, str) else found.get(listed.key)
        if isinstance(entry, ManifestObject):
            entries.append(entry)
        else:
            unlisted[listed.key] = entry or f"the commit manifest of run {run} does not list it"
    return entries, unlisted


async def _listed_objects(
    store: BronzeStore, namespace: Namespace, name: ConnectionName, run: RunId
) -> dict[str, ManifestObject] | str:
    """Return the objects of a run's commit manifest by their keys, or why there is none."""
    key = commit_key(store.settings.prefix, namespace, name, run)
    body = await asyncio.to_thread(fetched, store, key)
    if isinstance(body, str):
        return f"{key}: {body}"
    try:
        manifest = parse_commit_manifest(body, run)
    except UnreadableManifestError as error:
        return f"{key}: {error}"
    if isinstance(manifest, OldCommitManifest):
        return f"{key}: it has version {manifest.version}, which is not read"
    return {written.key: written for written in (*manifest.objects, *manifest.rejected)}


async def compare(store: BronzeStore, entries: list[ManifestObject], *, read: bool) -> dict[str, str]:
    """Return how objects differ from the bucket's: in size or checksum, and with `read` in the number of records."""
    differences = await store.differences({entry.key: ObjectContent(entry.bytes, entry.sha256) for entry in entries})
    if read:
        for entry in entries:
            if entry.key not in differences and (found := await asyncio.to_thread(_miscounted, store, entry)):
                differences[entry.key] = found
    return differences


def _miscounted(store: BronzeStore, entry: ManifestObject) -> str:
    body = fetched(store, entry.key)
    if isinstance(body, str):
        return body
    try:
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: reader.read(1 << 20), b""))
    except zstandard.ZstdError:
        return "it is not zstd, or damaged"
    return "" if lines == entry.records else f"it holds {lines} records, and {entry.records} were committed"
