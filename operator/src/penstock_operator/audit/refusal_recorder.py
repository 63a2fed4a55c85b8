"""Records refused and failed requests, within a limit: who has no token cannot fill the table.

A refused request has no transaction that stays, so its event has one of its own, after the answer. Each minute, each address
without a valid token, and each known caller, has a number of events; beyond it, refusals are counted, and the minute ends with one event
for each kind of refusal that says how many were left out.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter as Metric

from penstock_operator import limits
from penstock_operator.audit import audit_store
from penstock_operator.audit.events import Action, Actor, ActorKind, AuditedObject, AuditEvent, Result
from penstock_operator.registry.database import Pool

log = structlog.get_logger()
LEFT_OUT = Metric("penstock_audit_left_out", "Refused requests that the audit only counts", ["actor_kind"])
MAX_CALLERS = 4_096
"""Callers that a minute tells apart; refusals of others are only counted."""
ANYBODY = ("anonymous", "")


@dataclass(slots=True)
class RefusalBudget:
    """How many refusals of a minute are recorded one by one. Not thread-safe; a clock in seconds is given."""

    clock: Callable[[], float] = time.monotonic
    _began: float = float("-inf")
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)

    def allows(self, actor: Actor) -> bool:
        """Count a refusal, and return True if it is to be recorded."""
        now = self.clock()
        if now - self._began >= limits.AUDIT_WINDOW_SECONDS:
            self._began = now
            self._seen.clear()
        if actor.kind == "anonymous":
            key, most = ("address", actor.address or ""), limits.MAX_ANONYMOUS_REFUSALS_PER_ADDRESS
            if self._seen[ANYBODY] >= limits.MAX_ANONYMOUS_REFUSALS:
                return False
        else:
            key, most = (actor.kind, _account(actor)), limits.MAX_REFUSALS_PER_CALLER
        if self._seen[key] >= most or (key not in self._seen and len(self._seen) >= MAX_CALLERS):
            return False
        self._seen[key] += 1
        if actor.kind == "anonymous":
            self._seen[ANYBODY] += 1
        return True


def _account(actor: Actor) -> str:
    """Return the name that a limit is counted for: pods of one namespace share one, as a tenant can make any number."""
    return actor.name.partition("/")[0] if actor.kind == "pod" else actor.name


@dataclass(frozen=True, slots=True)
class _Kind:
    """Refusals that one event counts."""

    actor_kind: ActorKind
    action: Action
    result: Result
    reason: str


class RefusalRecorder:
    """Records refusals in the registry. It never raises, and never delays a request's answer."""

    def __init__(self, pool: Pool, budget: RefusalBudget | None = None) -> None:
        self._pool = pool
        self._budget = budget or RefusalBudget()
        self._left_out: Counter[_Kind] = Counter()
        self._writing = asyncio.Semaphore(limits.MAX_AUDIT_WRITES)
        self._summary: asyncio.Task[None] | None = None

    async def record(self, event: AuditEvent, code: str) -> None:
        """Record a refusal, or count it if there are too many. `code` groups those that are counted."""
        if not self._budget.allows(event.actor):
            LEFT_OUT.labels(event.actor.kind).inc()
            self._left_out[_Kind(event.actor.kind, event.action, event.result, code)] += 1
            if self._summary is None or self._summary.done():
                self._summary = asyncio.create_task(self._summarize_later())
            return
        async with self._writing:
            await self._write([event])

    async def _summarize_later(self) -> None:
        await asyncio.sleep(limits.AUDIT_WINDOW_SECONDS)
        await self.summarize()

    async def summarize(self) -> None:
        """Record how many refusals were left out, one event for each kind of them."""
        left_out, self._left_out = self._left_out, Counter()
        await self._write(
            [
                AuditEvent(
                    kind.action,
                    AuditedObject("api"),
                    kind.result,
                    f"{kind.reason}: {count} more like this, beyond the limit of a minute",
                    Actor(kind=kind.actor_kind, name=""),
                    count,
                )
                for kind, count in left_out.items()
            ]
        )

    async def _write(self, events: list[AuditEvent]) -> None:
        if not events:
            return
        try:
            async with self._pool.connection(timeout=limits.AUDIT_WRITE_SECONDS) as db:
                await audit_store.record_all(db, events)
        except Exception as error:  # noqa: BLE001 - a refusal stays one when the registry does not answer
            log.warning("refusal not audited", error=type(error).__name__, events=sum(event.events for event in events))
