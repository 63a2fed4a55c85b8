"""What a person may ask for: a run now, and a run's end."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, Field

from penstock_operator.api.bearer import Token
from penstock_operator.api.lookups import find_connection, find_run
from penstock_operator.api.services import Services
from penstock_operator.errors import Invalid
from penstock_operator.runs import run_store, transitions
from penstock_operator.scheduling.backfill import BackfillWindow, FilledTick, backfill
from penstock_operator.scheduling.due import request_run
from penstock_operator.scheduling.reread import reread


class RunRequest(BaseModel):
    """Which connection to run now."""

    namespace: str
    name: str


class BackfillRequest(RunRequest):
    """Which ticks to fill, or what to read again: from a moment on, before another (now, where it is left out)."""

    start: Annotated[AwareDatetime, Field(alias="from")]
    end: Annotated[AwareDatetime | None, Field(alias="to")] = None
    streams: Annotated[list[str], Field(max_length=500)] = []


def action_routes(services: Services) -> APIRouter:
    """Return the routes; each asks first whether the caller may change the connection."""
    router = APIRouter()
    pool, may = services.pool, services.authenticator.person

    @router.post("/runs")
    async def start_run(request: RunRequest, token: Token) -> dict[str, str]:
        await may(token, "patch", request.namespace)
        async with pool.connection() as db:
            row = await find_connection(db, request.namespace, request.name)
            if not row["ready"]:
                message = f"connection {request.namespace}/{request.name} is not valid; its Stalled condition says why"
                raise Invalid(message)
            run_id = await request_run(db, row, f"api-{secrets.token_hex(8)}")
        if run_id is None:
            message = f"a run of {request.namespace}/{request.name} is under way; wait for it or cancel it"
            raise Invalid(message)
        return {"id": run_id}

    @router.post("/runs/backfill")
    async def backfill_runs(request: BackfillRequest, token: Token) -> list[FilledTick]:
        await may(token, "patch", request.namespace)
        now = datetime.now(UTC)
        window = BackfillWindow(request.start, request.end or now, tuple(request.streams))
        async with pool.connection() as db:
            row = await find_connection(db, request.namespace, request.name)
            return await backfill(db, row["uid"], window, now)

    @router.post("/runs/reread")
    async def reread_window(request: BackfillRequest, token: Token) -> dict[str, str]:
        await may(token, "patch", request.namespace)
        now = datetime.now(UTC)
        window = BackfillWindow(request.start, request.end or now, tuple(request.streams))
        async with pool.connection() as db:
            row = await find_connection(db, request.namespace, request.name)
            return {"id": await reread(db, row["uid"], window, now)}

    @router.post("/runs/{run_id}/cancel")
    async def cancel_run(run_id: str, token: Token) -> dict[str, str]:
        async with pool.connection() as db:
            row = await find_run(db, run_id)
            await may(token, "patch", row["namespace"])
            async with db.transaction():
                locked = await run_store.lock_run(db, run_id)
                if locked and locked["phase"] == "pending":
                    return {"phase": await transitions.cancel(db, locked)}
                if locked and locked["phase"] == "running":
                    await run_store.request_cancel(db, run_id)
        # What it was when it was asked: another may have ended it just before.
        return {"phase": (locked or row)["phase"]}

    return router
