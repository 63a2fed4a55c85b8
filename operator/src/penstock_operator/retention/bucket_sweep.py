"""The bucket's sweep, the second line: objects that the registry does not know.

A registry that is empty, restored from a backup or simply another one must never empty a bucket. So nothing goes that
was begun before the registry knew the connection, nothing that a commit manifest in the bucket names, and nothing young.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from datetime import timedelta

from botocore.exceptions import ClientError

from penstock_operator.bronze.keys import ParsedKey, commit_key, place_of
from penstock_operator.ids import RunId
from penstock_operator.retention import statements
from penstock_operator.retention.batches import CollectionContext
from penstock_operator.runs.attempt_store import ENDED_PHASES

YOUNG = timedelta(hours=24)


async def sweep_page(context: CollectionContext, token: str | None) -> tuple[int, str | None]:
    """Delete what is nobody's on one page of the bucket; return how many objects, and where the next page begins."""
    prefix = context.store.settings.prefix
    page = await context.store.list_page(f"{prefix}/" if prefix else "", token)
    places = {key: place for key, at in page.objects if context.now - at > YOUNG and (place := place_of(prefix, key))}
    candidates = await _unknown_objects(context, places)
    named = await _named_by_manifests(context, candidates)
    unknown = [key for key in candidates if key not in named]
    await context.store.delete(unknown)
    return len(unknown), page.token


async def _unknown_objects(context: CollectionContext, places: dict[str, ParsedKey]) -> dict[str, ParsedKey]:
    """Return the objects of runs that have ended, or are forgotten, which the registry should know and does not."""
    if not places:
        return {}
    async with context.pool.connection() as db:
        known = await statements.known_keys(db, list(places))
        phases = await statements.known_runs(db, list({RunId(place.run) for place in places.values()}))
        since = await statements.first_seen(db)

    def is_unknown(key: str, place: ParsedKey) -> bool:
        first = since.get((place.tenant, place.connection))
        if first is None or place.begun_at < first:
            return False
        if place.kind == "log":
            return place.run not in phases
        return key not in known and phases.get(RunId(place.run), "succeeded") in ENDED_PHASES

    return {key: place for key, place in places.items() if is_unknown(key, place)}


async def _named_by_manifests(context: CollectionContext, places: dict[str, ParsedKey]) -> set[str]:
    by_run: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for key, place in places.items():
        if place.kind == "object":
            by_run[place.tenant, place.connection, place.run].append(key)
    named: set[str] = set()
    for run in by_run:
        named |= await asyncio.to_thread(_manifest_keys, context, run)
    return named


def _manifest_keys(context: CollectionContext, run: tuple[str, str, str]) -> set[str]:
    try:
        body = context.store.read(commit_key(context.store.settings.prefix, *run))
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
            return set()
        raise
    return {listed["key"] for listed in json.loads(body)["objects"]}
