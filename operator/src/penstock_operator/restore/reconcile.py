"""An older registry, brought forward by its bucket: what was committed since the backup is known again, and not read twice.

The commit manifests tell which objects the runs since then have committed, and where they left each stream. An object that
no manifest names and the registry does not know was never committed, or by a run that never ended: its records are read
again, so it is left to the collector. Objects that are gone from the bucket were deleted on purpose, and are forgotten.
Connection by connection, each in one transaction; doing it again changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from penstock_operator.bronze.keys import ParsedKey, commit_key, commit_of, place_of
from penstock_operator.bronze.owner import owner_of_prefix
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.connections.predecessors import ConnectorMethod
from penstock_operator.registry.database import DatabaseConnection, Pool, Row
from penstock_operator.registry.installation import controller_sessions, installation_id, set_installation_id
from penstock_operator.resources.models import ConnectionSpec
from penstock_operator.restore import statements
from penstock_operator.runs import transitions
from penstock_operator.runs.attempt_store import AttemptOutcome
from penstock_operator.runs.commit_manifest import MANIFEST_VERSION

RESTORED = AttemptOutcome(
    "cancelled", "RegistryRestored", message="the registry was restored from a backup, and the run had gone on since"
)
Manifest = dict[str, Any]
SHOWN = 5
OF_THE_REGISTRY = (
    *("installation", "connection_uid", "namespace_uid", "first_generation", "connector", "bronze"),
    *("trigger", "token", "attempt", "reason", "error_class", "message", "scheduled_at", "created_at", "started_at"),
)
"""What `commit_document` writes of the registry."""


class ReconcileError(Exception):
    """Nothing can be reconciled; the message says why and what to do."""


@dataclass
class ReconcileResult:
    """What was brought forward of one connection."""

    namespace: str
    name: str
    runs: int = 0
    objects: int = 0
    streams: int = 0
    cancelled: int = 0
    leftovers: int = 0
    deleted: int = 0
    left_alone: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether the registry was behind."""
        counts = (self.runs, self.objects, self.streams, self.cancelled, self.leftovers, self.deleted)
        return any(counts) or bool(self.notes)


@dataclass(frozen=True)
class BucketContent:
    """What the bucket holds of one connection."""

    namespace: str
    name: str
    objects: dict[str, ParsedKey]
    runs: list[str]


async def reconcile_registry(pool: Pool, store: BronzeStore, *, dry_run: bool = False) -> list[ReconcileResult]:
    """Bring the registry forward, and return what changed. Raises ReconcileError while a controller works on it."""
    async with pool.connection() as db:
        if await controller_sessions(db):
            raise ReconcileError(
                "a controller works on this registry: stop it first (in a cluster, scale its Deployment to 0), then repeat"
            )
        known = await statements.committed_keys(db)
        owner = await owner_of_prefix(store)
        trusted = {await installation_id(db), *filter(None, [owner])} if owner or known else set()
        found, seen = [], set[tuple[str, str]]()
        async for held in _held(store):
            seen.add((held.namespace, held.name))
            manifests = await _manifests(db, store, held, trusted)
            if manifests.unreadable:
                found.append(_left_alone(held, manifests.unreadable))
                continue
            async with db.transaction(force_rollback=dry_run):
                keys = known.get((held.namespace, held.name), set())
                found.append(await _Reconcile(db, held, manifests, keys).reconcile())
        missing = {owner: keys for owner, keys in known.items() if owner not in seen}
        if missing and not seen:
            raise ReconcileError(
                "the bucket holds nothing of what the registry knows: correct PENSTOCK_S3_BUCKET or PENSTOCK_S3_PREFIX"
            )
        for (namespace, name), keys in missing.items():
            async with db.transaction(force_rollback=dry_run):
                deleted = await statements.forget_objects(db, list(keys))
            found.append(ReconcileResult(namespace, name, deleted=deleted))
        if owner and not known and not dry_run:  # a registry that was lost is whose the bucket is
            await set_installation_id(db, owner)
    return [each for each in found if each.changed]


async def _held(store: BronzeStore) -> AsyncIterator[BucketContent]:
    """List the bucket connection by connection: the keys of one follow each other."""
    prefix, token, held = store.settings.prefix, None, None
    while True:
        page = await store.list_page(f"{prefix}/tenant=" if prefix else "tenant=", token)
        for key, _ in page.objects:
            place = place_of(prefix, key) or commit_of(prefix, key)
            if place is None:
                continue
            if held is None or (held.namespace, held.name) != (place.tenant, place.connection):
                if held:
                    yield held
                held = BucketContent(place.tenant, place.connection, {}, [])
            if place.kind == "commit":
                held.runs.append(place.run)
            elif place.object:
                held.objects[key] = place
        token = page.token
        if token is None:
            break
    if held:
        yield held


@dataclass(frozen=True)
class CommitManifests:
    """The manifests of the runs that the registry does not know as ended, oldest first.

    `unreadable` says why by key; `foreign` are runs of another installation that writes below the same prefix.
    """

    own: list[Manifest]
    foreign: list[str]
    unreadable: dict[str, str]


async def _manifests(
    db: DatabaseConnection, store: BronzeStore, held: BucketContent, trusted: set[str]
) -> CommitManifests:
    ended = await statements.ended_runs(db, held.runs)
    found = CommitManifests([], [], {})
    for run in sorted(set(held.runs) - ended):
        key = commit_key(store.settings.prefix, held.namespace, held.name, run)
        try:
            manifest = parsed_manifest(await asyncio.to_thread(store.read, key), run)
        except (ValueError, ClientError) as error:
            found.unreadable[key] = str(error)
            continue
        installation = manifest["registry"]["installation"] if "registry" in manifest else None
        if trusted and installation is not None and installation not in trusted:
            found.foreign.append(run)
        else:
            found.own.append(manifest)
    return found


def parsed_manifest(body: bytes, run: str) -> Manifest:
    """Return a commit manifest; raises ValueError that says why it is none."""
    try:
        manifest: Manifest = json.loads(body)
    except ValueError:
        message = "it is not JSON"
        raise ValueError(message) from None
    version = manifest.get("version", 1) if isinstance(manifest, dict) else None
    if not isinstance(version, int):
        message = "it is not a commit manifest"
        raise ValueError(message)  # noqa: TRY004 - one error for all that it may be
    if version > MANIFEST_VERSION:
        message = f"a newer version of Penstock wrote it (manifest version {version}): use that one"
        raise ValueError(message)
    parts = {"run": str, "objects": list, "rejected": list}
    if version > 1:
        parts |= {"phase": str, "finished_at": str, "states": list, "schemas": list, "registry": dict}
    wrong = [name for name, kind in parts.items() if not isinstance(manifest.get(name), kind)]
    wrong += [
        f"registry.{name}" for name in OF_THE_REGISTRY if version > 1 and not wrong and name not in manifest["registry"]
    ]
    if wrong:
        message = f"{wrong[0]} is missing or of another type"
        raise ValueError(message)
    if manifest["run"] != run:
        message = "it is of another run than its name says"
        raise ValueError(message)
    return manifest


def _left_alone(held: BucketContent, unreadable: dict[str, str]) -> ReconcileResult:
    """Return what is said of a connection with a manifest that cannot be read: without it, its records would be lost."""
    told = "; ".join(f"{key}: {why}" for key, why in list(unreadable.items())[:SHOWN])
    more = f"; and {len(unreadable) - SHOWN} more" if len(unreadable) > SHOWN else ""
    note = (
        f"LEFT AS IT IS, as commit manifests cannot be read: {told}{more}. Put a good version of each back and repeat;"
        f" or delete them, repeat, and read the connection anew with `penstock state reset {held.namespace}/{held.name}`"
    )
    return ReconcileResult(held.namespace, held.name, notes=[note], left_alone=True)


class _Reconcile:
    """Brings one connection forward, in its caller's transaction."""

    def __init__(
        self, db: DatabaseConnection, held: BucketContent, manifests: CommitManifests, known: set[str]
    ) -> None:
        self._connection = db
        self._held = held
        self._manifests = [each for each in manifests.own if each.get("version", 1) > 1]
        self._old = [each for each in manifests.own if each.get("version", 1) == 1]
        self._foreign = manifests.foreign
        self._known = known
        self._told = ReconcileResult(held.namespace, held.name)

    async def reconcile(self) -> ReconcileResult:
        """Take each step, and return what was done."""
        held = self._held
        rows = await statements.connections_named(self._connection, held.namespace, held.name)
        for manifest in self._manifests:
            row = _of_manifest(rows, manifest["registry"])
            if row is None:
                row = await self._record(manifest["registry"])
                rows.append(row)
            await self._bring_forward(row, manifest)
        self._note_old()
        if self._foreign:
            self._told.notes.append(
                f"{len(self._foreign)} runs are of another installation, which writes below the same prefix; left alone"
            )
            return self._told
        await self._end_runs(sorted({place.run for place in self._unknown().values()}))
        # A connection that the registry never knew may be another installation's: what is under way of it stays.
        ours = await installation_id(self._connection)
        if any(row["generation"] for row in rows) or (
            self._manifests and self._manifests[-1]["registry"]["installation"] == ours
        ):
            await self._leave(rows[0]["uid"])
        elif not rows:
            self._told.notes.append("unknown to the registry, and no manifest says whose it is; left alone")
        gone = self._known - held.objects.keys()
        self._told.deleted = await statements.forget_objects(self._connection, sorted(gone))
        return self._told

    async def _record(self, registry: Manifest) -> Row:
        """Record a connection that the registry never knew as retired."""
        values = {
            "uid": registry["connection_uid"],
            "namespace": self._held.namespace,
            "name": self._held.name,
            "spec": {"connector": registry["connector"], "bronze": registry["bronze"]},
            "namespace_uid": registry["namespace_uid"],
            "first": registry["first_generation"],
        }
        self._told.notes.append("recorded again; it goes on when it is applied")
        return await statements.insert_retired(self._connection, values)

    async def _bring_forward(self, row: Row, manifest: Manifest) -> None:
        uid, run_id, registry = row["uid"], manifest["run"], manifest["registry"]
        objects = [
            {**each, "kind": kind}
            for kind, listed in (("data", manifest["objects"]), ("rejected", manifest["rejected"]))
            for each in listed
            if each["key"] in self._held.objects
        ]
        if objects or not manifest["objects"]:
            self._told.runs += await self._put_run(row, manifest)
        await self._end_runs([run_id])
        self._told.objects += await statements.put_objects(self._connection, uid, run_id, objects)
        for state in manifest["states"]:
            self._told.streams += await statements.bring_forward(self._connection, uid, run_id, state)
        for schema in manifest["schemas"]:
            await statements.put_schema(self._connection, uid, schema)
        succeeded = run_id if manifest["phase"] == "succeeded" else None
        first = registry["first_generation"]
        await statements.raise_first_generation(self._connection, uid, first, succeeded)

    async def _put_run(self, row: Row, manifest: Manifest) -> int:
        registry = manifest["registry"]
        moments = ("scheduled_at", "created_at", "started_at")
        return await statements.put_run(
            self._connection,
            {
                "id": manifest["run"],
                "uid": row["uid"],
                "namespace": row["namespace"],
                "spec": row["spec"],
                "definition": manifest["definition"],
                "phase": manifest["phase"],
                "records": manifest["records"],
                "deletes": sum(each.get("deletes") or 0 for each in manifest["objects"]),
                "rejected": sum(each["records"] for each in manifest["rejected"]),
                "bytes": manifest["bytes"],
                "objects": len(manifest["objects"]),
                "finished_at": datetime.fromisoformat(manifest["finished_at"]),
                **{key: registry[key] for key in ("trigger", "token", "attempt", "reason", "error_class", "message")},
                **{key: datetime.fromisoformat(registry[key]) if registry[key] else None for key in moments},
            },
        )

    def _note_old(self) -> None:
        """Manifests of a version before hold no state: what they brought would be read again."""
        lost = [each for each in self._old if {found["key"] for found in each["objects"]} - self._known]
        if lost:
            self._told.notes += [
                (
                    f"{len(lost)} runs have manifests without states, of a version before: read it anew into a generation of"
                    f" its own with `penstock state reset {self._held.namespace}/{self._held.name}`"
                )
            ]

    async def _end_runs(self, ids: list[str]) -> None:
        """End those of the runs that the registry takes to be under way: they went on since the backup."""
        for run in await statements.active_among(self._connection, ids):
            await transitions.stop(self._connection, run, RESTORED)
            self._told.cancelled += 1

    def _unknown(self) -> dict[str, ParsedKey]:
        named = {each["key"] for manifest in self._manifests for each in (*manifest["objects"], *manifest["rejected"])}
        old = {each["key"] for manifest in self._old for each in (*manifest["objects"], *manifest["rejected"])}
        return {key: self._held.objects[key] for key in self._held.objects.keys() - named - old - self._known}

    async def _leave(self, uid: str) -> None:
        """Record objects that nobody committed, so that the collector deletes them."""
        leftovers = [
            {"key": key, "run_id": place.run, **vars(place.object)}
            for key, place in self._unknown().items()
            if place.object
        ]
        self._told.leftovers = await statements.put_leftovers(self._connection, uid, leftovers)


def _of_manifest(rows: list[Row], registry: Manifest) -> Row | None:
    """Return the connection that a manifest is of: the one of its uid, else one that goes on under another uid now."""
    same = next((row for row in rows if row["uid"] == registry["connection_uid"]), None)
    return same or next((row for row in rows if _is_same(row, registry)), None)


def _is_same(row: Row, registry: Manifest) -> bool:
    spaces = (row["namespace_uid"], registry["namespace_uid"])
    return ConnectorMethod.of(ConnectionSpec.parse(row["spec"])) == ConnectorMethod.of(
        ConnectionSpec.parse(registry)
    ) and (None in spaces or spaces[0] == spaces[1])
