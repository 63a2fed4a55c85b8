"""Updates the committed counts in the statuses of connections whose runs are under way, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable

from penstock_operator.controller.workqueue import Key
from penstock_operator.registry.database import Pool
from penstock_operator.runs import run_store

PERIOD_SECONDS = 5.0
MOST = 40
"""Statuses a round: eight writes a second, however many runs commit. With forty runs or fewer, each is updated each round."""


class ProgressUpdates:
    """Remembers the count of each run that its status shows. Losing this cache costs one write for each run."""

    def __init__(self, pool: Pool, requeue: Callable[[Key], None]) -> None:
        self._pool = pool
        self._requeue = requeue
        self._told: dict[str, tuple[int, int]] = {}
        self._round = 0

    async def tell(self) -> int:
        """Queue the connections whose run has committed something since its status was written, the oldest statuses first."""
        self._round += 1
        async with self._pool.connection() as db:
            runs = await run_store.progress_of_running(db)
        self._told = {run.id: self._told.get(run.id, (0, 0)) for run in runs}
        moved = [run for run in runs if run.records != self._told[run.id][0]]
        for run in sorted(moved, key=lambda run: self._told[run.id][1])[:MOST]:
            self._told[run.id] = run.records, self._round
            self._requeue(("TenantConnection", run.namespace, run.name))
        return 0
