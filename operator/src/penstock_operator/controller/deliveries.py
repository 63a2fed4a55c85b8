"""The outbox's other end: each message is acted on at least once, and no message waits for another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from penstock_sdk.failpoints import reach

from penstock_operator.bronze.store import BronzeStore
from penstock_operator.controller.logs import KeepingLauncher, LogKeeper
from penstock_operator.controller.queue import Key
from penstock_operator.controller.supervisor import Clock, utc_now
from penstock_operator.launchers import Launch
from penstock_operator.launchers.logs import LogUnreadable
from penstock_operator.registry import attempts, connections, outbox, upstreams
from penstock_operator.registry.database import Pool, Row
from penstock_operator.runs import outcomes

log = structlog.get_logger()
AT_ONCE = 64
LEASE_SECONDS = 28.0
RETIRE_TRIES, UNREADABLE_TRIES = 20, 3
"""After this many tries a Job is retired without its log: three hours of no S3, or two minutes of no kubelet."""


class Deliveries:
    """Acts on messages, a few at a time; a slow one holds up nothing but its own place."""

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
        """Begin with as many messages as there are places, and return how many."""
        # What is taken is begun, whoever is cancelled meanwhile: it would else be nobody's until its lease has ended.
        self._taking = asyncio.create_task(self._take())
        taken = await asyncio.shield(self._taking)
        if self._busy:
            await asyncio.wait(self._busy, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
        return taken

    async def _take(self) -> int:
        room = AT_ONCE - len(self._busy)
        async with self._pool.connection() as connection:
            messages = await outbox.take(connection, room) if room else []
        for message in (each for each in messages if each["kind"] != "status"):
            reach("outbox.taken")
            task = asyncio.create_task(self._deliver(message))
            self._busy[task] = message["id"]
            task.add_done_callback(self._busy.pop)
        await self._tell([each for each in messages if each["kind"] == "status"])
        return len(messages)

    async def drain(self) -> None:
        """Act on everything that is due now."""
        while await self.step() or self._busy:
            pass

    async def aclose(self) -> None:
        """Drop what is under way, and give it back to the outbox: whoever goes on need not wait for it."""
        if self._taking:
            await asyncio.gather(self._taking, return_exceptions=True)
        dropped = dict(self._busy)
        for task in dropped:
            task.cancel()
        await asyncio.gather(*dropped, return_exceptions=True)
        if dropped:
            async with self._pool.connection() as connection:
                await outbox.give_back(connection, list(dropped.values()))

    async def _tell(self, messages: list[Row]) -> None:
        if not messages:
            return
        uids = list({each["payload"]["connection"] for each in messages})
        async with self._pool.connection() as connection:
            told = await outbox.status_messages(connection, uids)  # one write tells what all of them are about
            live = await connections.live_names(connection, uids)
            for row in live:
                self._requeue(("TenantConnection", row["namespace"], row["name"]))
            for namespace in {row["namespace"] for row in live}:
                await upstreams.wake_followers(connection, namespace, self._clock())
            await outbox.done(connection, told)

    async def _deliver(self, message: Row) -> None:
        try:
            async with asyncio.timeout(LEASE_SECONDS):
                await (self._commit if message["kind"] == "commit" else self._retire)(message)
        except Exception as error:  # noqa: BLE001 - it stays in the outbox, and the others go on
            words = f"{type(error).__name__}: {error}"
            log.warning("outbox message waits", kind=message["kind"], tries=message["tries"], error=words)
            return
        reach("outbox.acted")
        async with self._pool.connection() as connection:
            await outbox.done(connection, [message["id"]])
        reach("outbox.done")

    async def _commit(self, message: Row) -> None:
        async with self._pool.connection() as connection:
            commit = await outcomes.commit_document(connection, message["payload"]["run"], self._store.settings.prefix)
        if commit:
            await self._store.put_once(*commit)

    async def _retire(self, message: Row) -> None:
        payload = message["payload"]
        async with self._pool.connection() as connection:
            row = await attempts.carried_attempt(connection, payload["run"], payload["attempt"])
        if row is None:
            return
        launch = Launch.from_row(row)
        if payload.get("stop"):
            await self._launcher.stop(launch)
        try:
            await self._launcher.retire(launch)
        except Exception as error:
            if message["tries"] < (UNREADABLE_TRIES if isinstance(error, LogUnreadable) else RETIRE_TRIES):
                raise
            await self._keeper.give_up(launch, f"{type(error).__name__}: {error}")
            await self._launcher.let_go(launch)
