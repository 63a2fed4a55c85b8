"""Acts on the messages of the outbox: on each at least once, and no message waits for another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from penstock_operator import outbox
from penstock_operator.attempts.supervisor import Clock, utc_now
from penstock_operator.bronze.store import BronzeStore
from penstock_operator.connections import connection_store
from penstock_operator.controller.workqueue import Key
from penstock_operator.failpoints import reach
from penstock_operator.ids import ConnectionUid, RunId
from penstock_operator.launchers import AttemptLaunch
from penstock_operator.launchers.logs import LogUnreadable
from penstock_operator.logs.keeper import KeepingLauncher, LogKeeper
from penstock_operator.registry.database import Pool
from penstock_operator.runs import attempt_store
from penstock_operator.runs.commit_store import commit_manifest
from penstock_operator.scheduling import upstream_store

log = structlog.get_logger()
AT_ONCE = 64
LEASE_SECONDS = 28.0
RETIRE_TRIES, UNREADABLE_TRIES = 20, 3
"""After this many tries a Job is retired without its log: three hours without S3, or two minutes without the kubelet."""


class OutboxDispatcher:
    """Acts on messages, at most AT_ONCE at a time; a slow one delays no other."""

    def __init__(
        self,
        pool: Pool,
        store: BronzeStore,
        launcher: KeepingLauncher,
        keeper: LogKeeper,
        requeue: Callable[[Key], None],
        clock: Clock = utc_now,
    ) -> None:
        self._pool = pool
        self._store = store
        self._launcher = launcher
        self._keeper = keeper
        self._requeue = requeue
        self._clock = clock
        self._busy: dict[asyncio.Task[None], int] = {}
        self._taking: asyncio.Task[int] | None = None

    async def step(self) -> int:
        """Begin with as many messages as have room, and return how many."""
        # Messages that are taken are also begun, even if this task is cancelled: else nobody acts on them until their lease ends.
        self._taking = asyncio.create_task(self._take())
        taken = await asyncio.shield(self._taking)
        if self._busy:
            await asyncio.wait(self._busy, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
        return taken

    async def _take(self) -> int:
        room = AT_ONCE - len(self._busy)
        async with self._pool.connection() as db:
            messages = await outbox.take(db, room) if room else []
        for message in messages:
            if isinstance(message.task, outbox.WriteStatus):
                continue
            reach("outbox.taken")
            task = asyncio.create_task(self._deliver(message))
            self._busy[task] = message.id
            task.add_done_callback(self._busy.pop)
        await self._write_statuses(
            [message.task.connection for message in messages if isinstance(message.task, outbox.WriteStatus)]
        )
        return len(messages)

    async def drain(self) -> None:
        """Act on everything that is due now."""
        while await self.step() or self._busy:
            pass

    async def aclose(self) -> None:
        """Cancel the messages under way and release them, so that the next leader need not wait for their lease."""
        if self._taking:
            await asyncio.gather(self._taking, return_exceptions=True)
        dropped = dict(self._busy)
        for task in dropped:
            task.cancel()
        await asyncio.gather(*dropped, return_exceptions=True)
        if dropped:
            async with self._pool.connection() as db:
                await outbox.release(db, list(dropped.values()))

    async def _write_statuses(self, connections: list[ConnectionUid]) -> None:
        if not connections:
            return
        uids = sorted(set(connections))
        async with self._pool.connection() as db:
            answered = await outbox.status_messages(db, uids)  # one write of the status answers all of them
            live = await connection_store.live_names(db, uids)
            for namespace, name in live:
                self._requeue(("TenantConnection", namespace, name))
            for namespace in {connection.namespace for connection in live}:
                await upstream_store.wake_followers(db, namespace, self._clock())
            await outbox.delete(db, answered)

    async def _deliver(self, message: outbox.OutboxMessage) -> None:
        try:
            async with asyncio.timeout(LEASE_SECONDS):
                await self._act(message)
        except Exception as error:  # noqa: BLE001 - it stays in the outbox, and the others go on
            words = f"{type(error).__name__}: {error}"
            log.warning("outbox message postponed", task=type(message.task).__name__, tries=message.tries, error=words)
            return
        reach("outbox.acted")
        async with self._pool.connection() as db:
            await outbox.delete(db, [message.id])
        reach("outbox.done")

    async def _act(self, message: outbox.OutboxMessage) -> None:
        match message.task:
            case outbox.WriteCommit(run):
                await self._commit(run)
            case outbox.RetireAttempt():
                await self._retire(message.task, message.tries)
            case outbox.WriteStatus(connection):
                await self._write_statuses([connection])

    async def _commit(self, run_id: RunId) -> None:
        async with self._pool.connection() as db:
            manifest = await commit_manifest(db, run_id)
        if manifest:
            await self._store.put_once(manifest.key(self._store.settings.prefix), manifest.document())

    async def _retire(self, task: outbox.RetireAttempt, tries: int) -> None:
        async with self._pool.connection() as db:
            found = await attempt_store.carried_attempt(db, task.run, task.attempt)
        if found is None:
            return
        launch = AttemptLaunch.of_carried(found)
        if task.stop:
            await self._launcher.stop(launch)
        try:
            await self._launcher.retire(launch)
        except Exception as error:
            if tries < (UNREADABLE_TRIES if isinstance(error, LogUnreadable) else RETIRE_TRIES):
                raise
            await self._keeper.give_up(launch, f"{type(error).__name__}: {error}")
            await self._launcher.let_go(launch)
