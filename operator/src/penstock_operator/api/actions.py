"""Routes that make runs, and cancel them."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, Field

from penstock_operator.api.authentication import Token
from penstock_operator.api.lookups import find_connection, find_run
from penstock_operator.api.models import BackfilledRun, CancelledRun, StartedRun
from penstock_operator.api.services import Services
from penstock_operator.audit import audit_store
from penstock_operator.audit.events import Action, AuditedObject
from penstock_operator.errors import Invalid
from penstock_operator.ids import Namespace, ObjectId, RunId
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.runs import run_store, transitions
from penstock_operator.runs.attempt_store import RunPhase
from penstock_operator.scheduling.backfill import BackfillWindow, backfill
from penstock_operator.scheduling.due import request_run
from penstock_operator.scheduling.reread import reread


class RunRequest(BaseModel):
    """The connection to run now."""

    namespace: str
    name: str


class BackfillRequest(RunRequest):
    """The window whose ticks get a run, or which is read again: `from` included, `to` not; `to` is now if it is left out."""

    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime | None, Field(alias="to")] = None
    streams: Annotated[list[str], Field(max_length=500)] = []

    def window(self, now: datetime) -> BackfillWindow:
        """Return the window that is asked for."""
        return BackfillWindow(self.start, self.end or now, tuple(self.streams))


def action_routes(services: Services) -> APIRouter:
    """Return the routes; each checks first that the caller may change the connection."""
    router = APIRouter()
    pool, may = services.pool, services.authenticator.person

    @router.post("/runs")
    async def start_run(request: RunRequest, token: Token) -> StartedRun:
        """Make a run of the connection, which starts at once."""
        await may(token, "patch", request.namespace)
        async with pool.connection() as db:
            row = await find_connection(db, services.authenticator, request.namespace, request.name)
            if not row.ready:
                message = f"connection {request.namespace}/{request.name} is not valid; its Stalled condition says why"
                raise Invalid(message)
            run_id = await request_run(db, row.uid, f"api-{secrets.token_hex(8)}")
        if run_id is None:
            message = f"a run of {request.namespace}/{request.name} is under way; wait for it or cancel it"
            raise Invalid(message)
        return StartedRun(id=RunId(run_id))

    @router.post("/runs/backfill")
    async def backfill_runs(request: BackfillRequest, token: Token) -> list[BackfilledRun]:
        """Make a run for each tick of the window that has none."""
        await may(token, "patch", request.namespace)
        now = datetime.now(UTC)
        async with pool.connection() as db, db.transaction():
            row = await find_connection(db, services.authenticator, request.namespace, request.name)
            filled = await backfill(db, row.uid, request.window(now), now)
            asked = AuditedObject("connection", Namespace(request.namespace), request.name)
            await audit_store.record(db, Action.run_backfill, asked, reason=f"{len(filled)} runs")
        return [BackfilledRun(id=RunId(tick.id), scheduled_at=tick.scheduled_at) for tick in filled]

    @router.post("/runs/reread")
    async def reread_window(request: BackfillRequest, token: Token) -> StartedRun:
        """Make one run that reads the source's records of the window again."""
        await may(token, "patch", request.namespace)
        now = datetime.now(UTC)
        async with pool.connection() as db, db.transaction():
            row = await find_connection(db, services.authenticator, request.namespace, request.name)
            run_id = await reread(db, row.uid, request.window(now), now)
            asked = AuditedObject("connection", Namespace(request.namespace), request.name, ObjectId(run_id))
            await audit_store.record(db, Action.run_reread, asked)
        return StartedRun(id=run_id)

    @router.post("/runs/{run_id}/cancel")
    async def cancel_run(run_id: str, token: Token) -> CancelledRun:
        """Ask for the end of a run; a run that has not started ends at once."""
        async with pool.connection() as db:
            found = await find_run(db, services.authenticator, token, "patch", run_id)
            async with db.transaction():
                phase = await _cancel(db, RunId(run_id))
        return CancelledRun.model_validate({"phase": phase or found.phase})

    return router


async def _cancel(db: DatabaseConnection, run_id: RunId) -> RunPhase | None:
    """End a run that waits, and ask a run under way to end. Return the phase of the run; None if it is gone.

    The phase is that of the moment of the request: the run may have ended just before.
    """
    locked = await run_store.lock_run(db, run_id)
    if locked is None:
        return None
    if locked.phase == "pending":
        await run_store.record_cancel(db, run_id, locked.connection_uid)
        return await transitions.cancel(db, locked)
    if locked.phase == "running":
        await run_store.request_cancel(db, run_id)
    return locked.phase
