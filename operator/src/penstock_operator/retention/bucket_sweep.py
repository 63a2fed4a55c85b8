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
from penstock_operator.retention import statements
from penstock_operator.retention.batches import CollectionContext

YOUNG = timedelta(hours=24)
ENDED = ("succeeded", "failed", "cancelled")


async def sweep_page(grounds: CollectionContext, token: str | None) -> tuple[int, str | None]:
    """Delete what is nobody's on one page of the bucket; return how many objects, and where the next page begins."""
    prefix = grounds.store.settings.prefix
    page = await grounds.store.list_page(f"{prefix}/" if prefix else "", token)
    places = {key: place for key, at in page.objects if grounds.now - at > YOUNG and (place := place_of(prefix, key))}
    strangers = await _strangers(grounds, places)
    named = await _named_by_manifests(grounds, strangers)
    doomed = [key for key in strangers if key not in named]
    await grounds.store.delete(doomed)
    return len(doomed), page.token


async def _strangers(grounds: CollectionContext, places: dict[str, ParsedKey]) -> dict[str, ParsedKey]:
    """Return the objects of runs that have ended, or are forgotten, which the registry should know and does not."""
    if not places:
        return {}
    async with grounds.pool.connection() as db:
        known = await statements.known_keys(db, list(places))
        phases = await statements.known_runs(db, list({place.run for place in places.values()}))
        since = await statements.first_seen(db)

    def is_strange(key: str, place: ParsedKey) -> bool:
        first = since.get((place.tenant, place.connection))
        if first is None or place.begun_at < first:
            return False
        if place.kind == "log":
            return place.run not in phases
        return key not in known and phases.get(place.run, "succeeded") in ENDED

    return {key: place for key, place in places.items() if is_strange(key, place)}


async def _named_by_manifests(grounds: CollectionContext, places: dict[str, ParsedKey]) -> set[str]:
    by_run: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for key, place in places.items():
        if place.kind == "object":
            by_run[place.tenant, place.connection, place.run].append(key)
    named: set[str] = set()
    for run in by_run:
        named |= await asyncio.to_thread(_manifest_keys, grounds, run)
    return named


def _manifest_keys(grounds: CollectionContext, run: tuple[str, str, str]) -> set[str]:
    try:
        body = grounds.store.read(commit_key(grounds.store.settings.prefix, *run))
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
            return set()
        raise
    return {each["key"] for each in json.loads(body)["objects"]}
