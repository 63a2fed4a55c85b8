"""A tenant who applies connections, and a platform whose clock is turned by hand: real reconciles on a real registry."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from penstock_operator import outbox
from penstock_operator.connections import connection_store
from penstock_operator.connections.connection_store import ConnectionRow
from penstock_operator.controller.dependencies import affected
from penstock_operator.ids import ConnectionName, Namespace
from penstock_operator.registry.database import Pool, Row, execute, many
from penstock_operator.runs import attempt_store, bronze_objects, run_store, transitions
from penstock_operator.runs.attempt_store import AttemptOutcome
from penstock_operator.runs.retry import AttemptFailure
from penstock_operator.scheduling import fairness, upstream_store
from penstock_operator.scheduling.due import schedule_due
from penstock_operator.scheduling.fairness import ClaimedAttempt

from tests.reconciling import reconcile

FAKER = {"name": "faker", "method": "generate"}
FINAL = AttemptFailure("ConfigError")


@dataclass
class Tenant:
    """One namespace."""

    pool: Pool
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def apply(self, name: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
        """Apply a connection, and return its status."""
        before = self.documents.get(name, {"metadata": {"generation": 0}})
        spec = {"connector": FAKER, **spec}
        changed = spec != before.get("spec")
        metadata = {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "generation": before["metadata"]["generation"] + changed,
            "annotations": annotations or {},
        }
        kind = {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection"}
        self.documents[name] = {**kind, "metadata": metadata, "spec": spec, "status": before.get("status", {})}
        return await self.reconcile(name)

    async def reconcile(self, name: str) -> dict[str, Any]:
        """Reconcile a connection and whoever that affects, as the controller's queue does."""
        document = self.documents[name]
        document["status"] = await reconcile(self.pool, document)
        async with self.pool.connection() as db:
            followers = await affected(db, Namespace("team"), ConnectionName(name), changed=True)
        for follower in followers:
            self.documents[follower]["status"] = await reconcile(self.pool, self.documents[follower])
        return dict(document["status"])

    async def status(self, name: str) -> dict[str, Any]:
        """Return a connection's status as it is now."""
        self.documents[name]["status"] = await reconcile(self.pool, self.documents[name])
        return dict(self.documents[name]["status"])

    async def row(self, name: str) -> ConnectionRow:
        """Return a connection's row."""
        async with self.pool.connection() as db:
            found = await connection_store.connection_by_name(db, "team", name)
        assert found is not None
        return found

    async def turn(self, now: datetime) -> int:
        """Let the scheduler look at the clock."""
        return await schedule_due(self.pool, now)

    async def due(self, name: str) -> datetime:
        """Return when the connection is due next."""
        at = (await self.row(name)).next_run_at
        assert isinstance(at, datetime)
        return at

    async def runs(self, name: str) -> list[Row]:
        """Return a connection's runs, in the order in which they were made."""
        async with self.pool.connection() as db:
            return await many(
                db,
                "SELECT * FROM penstock.connector_runs WHERE connection_uid = %(uid)s ORDER BY created_at, scheduled_at",
                uid=f"uid-{name}",
            )

    async def phases(self, name: str) -> list[str]:
        """Return the phases of its runs."""
        return [run["phase"] for run in await self.runs(name)]

    async def begin(self) -> list[ClaimedAttempt]:
        """Give every run whose turn it is its next attempt, in this tenant's far future so that no backoff holds it."""
        async with self.pool.connection() as db:
            taken = await fairness.claim_runs(db, datetime.now(UTC) + timedelta(days=2), 100)
            for claimed in taken:
                await attempt_store.record_job(db, claimed.run_id, claimed.attempt, f"job-{claimed.run_id}")
        return taken

    async def succeed(self, run_id: str) -> None:
        """End a run well, and let the outbox's news reach whoever follows."""
        async with self.pool.connection() as db, db.transaction():
            locked = await run_store.lock_run(db, run_id)
            assert locked is not None
            await transitions.succeed(db, locked, AttemptOutcome("succeeded", "RunSucceeded"))
        await self.deliver()

    async def fail(self, run_id: str, failure: AttemptFailure = FINAL) -> str:
        """End an attempt as failed, and return what becomes of its run."""
        async with self.pool.connection() as db, db.transaction():
            locked = await run_store.lock_run(db, run_id)
            assert locked is not None
            ending = AttemptOutcome("failed", failure.error_class, failure.error_class, "the source said no")
            return await transitions.fail(db, locked, ending, failure)

    async def deliver(self) -> None:
        """Act on the outbox's status messages as the orchestrator does."""
        async with self.pool.connection() as db:
            for message in await outbox.take(db, 1000):
                if isinstance(message.task, outbox.WriteStatus):
                    await upstream_store.wake_followers(db, "team", datetime.now(UTC))

    async def run_one(self, name: str) -> str:
        """Begin what waits, and end this connection's run well."""
        await self.begin()
        (current,) = [run for run in await self.runs(name) if run["phase"] == "running"]
        await self.succeed(current["id"])
        return str(current["id"])

    async def committed(self, run_id: str, attempt: int) -> bool:
        """Say whether an attempt committed something."""
        async with self.pool.connection() as db:
            return await bronze_objects.has_progressed(db, run_id, attempt)

    async def sql(self, statement: str) -> None:
        """Run a statement."""
        async with self.pool.connection() as db:
            await execute(db, statement)
