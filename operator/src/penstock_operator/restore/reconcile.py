"""Bring a registry that was restored from a backup forward, so that no record that was committed since is read again.

The commit manifests list the objects that the runs since the backup have committed, and the state that they left of each
stream. An object that no manifest lists and the registry does not know was never committed, or was committed by a run that
never ended. Its records are read again, so the object is recorded as uncommitted and the collector deletes it. Objects that
are gone from the bucket were deleted on purpose; their rows are deleted. Each connection is one transaction, and a second
call changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from botocore.exceptions import ClientError

from penstock_operator.bronze.keys import ParsedKey, commit_key, commit_of, place_of
from penstock_operator.bronze.owner import owner_of_prefix
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.connections.connection_store import ConnectionKey
from penstock_operator.connections.predecessors import ConnectorMethod
from penstock_operator.ids import ConnectionName, ConnectionUid, Namespace, RunId
from penstock_operator.registry.database import DatabaseConnection, Pool
from penstock_operator.registry.installation import controller_sessions, installation_id, set_installation_id
from penstock_operator.restore import statements
from penstock_operator.restore.statements import NamedConnection
from penstock_operator.runs import transitions
from penstock_operator.runs.attempt_store import AttemptOutcome
from penstock_operator.runs.commit_manifest import (
    CommitManifest,
    OldCommitManifest,
    RegistryRecord,
    UnreadableManifestError,
    parse_commit_manifest,
)

RESTORED = AttemptOutcome(
    "cancelled", "RegistryRestored", message="the registry was restored from a backup, and the run had gone on since"
)
SHOWN = 5


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
    """Objects and commit manifests of one connection in the bucket."""

    namespace: Namespace
    name: ConnectionName
    objects: dict[str, ParsedKey]
    runs: list[RunId]


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
        found, seen = list[ReconcileResult](), set[ConnectionKey]()
        async for held in _held(store):
            key = ConnectionKey(held.namespace, held.name)
            seen.add(key)
            manifests = await _manifests(db, store, held, trusted)
            if manifests.unreadable:
                found.append(_left_alone(held, manifests.unreadable))
                continue
            async with db.transaction(force_rollback=dry_run):
                keys = known.get(key, set())
                found.append(await _Reconcile(db, held, manifests, keys).reconcile())
        missing = {key: keys for key, keys in known.items() if key not in seen}
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
    return [result for result in found if result.changed]


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
                held = BucketContent(Namespace(place.tenant), ConnectionName(place.connection), {}, [])
            if place.kind == "commit":
                held.runs.append(RunId(place.run))
            elif place.object:
                held.objects[key] = place
        token = page.token
        if token is None:
            break
    if held:
        yield held


@dataclass(frozen=True)
class FoundManifests:
    """The manifests of the runs that the registry does not know as ended, oldest first."""

    own: list[CommitManifest] = field(default_factory=list)
    old: list[OldCommitManifest] = field(default_factory=list)
    """Manifests of version 1, which hold no states."""
    foreign: list[RunId] = field(default_factory=list)
    """Runs of another installation that writes below the same prefix."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """By key: why the manifest cannot be read."""


async def _manifests(
    db: DatabaseConnection, store: BronzeStore, held: BucketContent, trusted: set[str]
) -> FoundManifests:
    ended = await statements.ended_runs(db, held.runs)
    found = FoundManifests()
    for run in sorted(set(held.runs) - ended):
        key = commit_key(store.settings.prefix, held.namespace, held.name, run)
        try:
            manifest = parse_commit_manifest(await asyncio.to_thread(store.read, key), run)
        except (UnreadableManifestError, ClientError) as error:
            found.unreadable[key] = str(error)
            continue
        if isinstance(manifest, OldCommitManifest):
            found.old.append(manifest)
        elif trusted and manifest.registry.installation not in trusted:
            found.foreign.append(run)
        else:
            found.own.append(manifest)
    return found


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

    def __init__(self, db: DatabaseConnection, held: BucketContent, manifests: FoundManifests, known: set[str]) -> None:
        self._db = db
        self._held = held
        self._manifests = manifests
        self._known = known
        self._result = ReconcileResult(held.namespace, held.name)

    async def reconcile(self) -> ReconcileResult:
        """Take each step, and return what was done."""
        held = self._held
        connections = await statements.connections_named(self._db, held.namespace, held.name)
        for manifest in self._manifests.own:
            connection = _of_manifest(connections, manifest.registry)
            if connection is None:
                connection = await self._record(manifest.registry)
                connections.append(connection)
            await self._bring_forward(connection, manifest)
        self._note_old()
        if self._manifests.foreign:
            self._result.notes.append(
                f"{len(self._manifests.foreign)} runs are of another installation, which writes below the same prefix; left alone"
            )
            return self._result
        await self._end_runs(sorted({RunId(location.run) for location in self._unknown().values()}))
        # A connection that the registry never knew may be another installation's: its uncommitted objects stay.
        newest = self._manifests.own[-1].registry.installation if self._manifests.own else None
        if any(connection.generation for connection in connections) or newest == await installation_id(self._db):
            await self._record_uncommitted(connections[0].uid)
        elif not connections:
            self._result.notes.append("unknown to the registry, and no manifest says whose it is; left alone")
        gone = self._known - held.objects.keys()
        self._result.deleted = await statements.forget_objects(self._db, sorted(gone))
        return self._result

    async def _record(self, registry: RegistryRecord) -> NamedConnection:
        """Record a connection that the registry never knew as retired."""
        self._result.notes.append("recorded again; it goes on when it is applied")
        return await statements.insert_retired(self._db, self._held.namespace, self._held.name, registry)

    async def _bring_forward(self, connection: NamedConnection, manifest: CommitManifest) -> None:
        uid, run_id = connection.uid, manifest.run
        data = [written for written in manifest.objects if written.key in self._held.objects]
        rejected = [written for written in manifest.rejected if written.key in self._held.objects]
        if data or rejected or not manifest.objects:
            self._result.runs += await statements.put_run(self._db, connection, manifest)
        await self._end_runs([run_id])
        self._result.objects += await statements.put_objects(self._db, uid, run_id, "data", data)
        self._result.objects += await statements.put_objects(self._db, uid, run_id, "rejected", rejected)
        for state in manifest.states:
            self._result.streams += await statements.bring_forward(self._db, uid, run_id, state)
        for schema in manifest.schemas:
            await statements.put_schema(self._db, uid, schema)
        succeeded = run_id if manifest.phase == "succeeded" else None
        await statements.raise_first_generation(self._db, uid, manifest.registry.first_generation, succeeded)

    def _note_old(self) -> None:
        """Report manifests of version 1: they hold no state, so the records of their runs would be read again."""
        lost = [
            manifest for manifest in self._manifests.old if {written.key for written in manifest.objects} - self._known
        ]
        if lost:
            self._result.notes += [
                (
                    f"{len(lost)} runs have manifests without states, of a version before: read it anew into a generation of"
                    f" its own with `penstock state reset {self._held.namespace}/{self._held.name}`"
                )
            ]

    async def _end_runs(self, ids: list[RunId]) -> None:
        """End those of the runs that the registry takes to be under way: they went on since the backup."""
        for run in await statements.active_among(self._db, ids):
            await transitions.stop(self._db, run, RESTORED)
            self._result.cancelled += 1

    def _unknown(self) -> dict[str, ParsedKey]:
        """Return the objects that neither a manifest lists nor the registry knows as committed."""
        manifests: list[CommitManifest | OldCommitManifest] = [*self._manifests.own, *self._manifests.old]
        listed = {key for manifest in manifests for key in manifest.object_keys()}
        return {key: self._held.objects[key] for key in self._held.objects.keys() - listed - self._known}

    async def _record_uncommitted(self, uid: ConnectionUid) -> None:
        """Record objects that nobody committed, so that the collector deletes them."""
        for key, location in self._unknown().items():
            if location.object:
                run_id = RunId(location.run)
                self._result.leftovers += await statements.put_uncommitted(self._db, uid, run_id, key, location.object)


def _of_manifest(connections: list[NamedConnection], registry: RegistryRecord) -> NamedConnection | None:
    """Return the connection that a manifest is of: the one of its uid, else one that goes on under another uid now."""
    same = next((connection for connection in connections if connection.uid == registry.connection_uid), None)
    return same or next((connection for connection in connections if _is_same(connection, registry)), None)


def _is_same(connection: NamedConnection, registry: RegistryRecord) -> bool:
    """Return True if namespace and connector are the same. A namespace whose uid is unknown counts as the same."""
    uids = {connection.namespace_uid, registry.namespace_uid} - {None}
    return ConnectorMethod.of(connection.spec) == ConnectorMethod.of(registry.spec) and len(uids) <= 1
