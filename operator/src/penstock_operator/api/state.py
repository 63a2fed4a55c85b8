"""A connection's state: shown, exported, reset, rewound, imported; every change with who made it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, model_validator

from penstock_operator import definitions
from penstock_operator.api.bearer import Token
from penstock_operator.api.lookups import find_connection
from penstock_operator.api.services import Services
from penstock_operator.state import history
from penstock_operator.state.admin import (
    Author,
    Import,
    Order,
    Reset,
    RewindToCheckpoint,
    RewindToCursor,
    RewindToRun,
    change_state,
    document_of,
)
from penstock_operator.state.document import StateDocument

StreamNames = Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=10_000)]
Reason = Annotated[str, Field(max_length=1000)]
Limit = Annotated[int, Query(ge=1, le=1000)]


class ResetRequest(BaseModel):
    """Which streams to read anew; none named: all."""

    streams: StreamNames = []
    reason: Reason = ""

    def order(self) -> Order:
        """Return what is asked for."""
        return Reset(tuple(self.streams))


class RewindRequest(BaseModel):
    """Where to put the streams: one of run, checkpoint and cursor; the latter two want exactly one stream."""

    streams: StreamNames = []
    run: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    checkpoint: Annotated[int, Field(ge=1)] | None = None
    cursor: Any = None
    reason: Reason = ""

    @model_validator(mode="after")
    def _one_target(self) -> RewindRequest:
        given = {"run": self.run is not None, "checkpoint": self.checkpoint is not None}
        targets = {name for name in self.model_fields_set & {"run", "checkpoint", "cursor"} if given.get(name, True)}
        if len(targets) != 1:
            raise ValueError("give one of run, checkpoint and cursor")
        if targets != {"run"} and len(self.streams) != 1:
            raise ValueError("streams: name the one stream to rewind")
        return self

    def order(self) -> Order:
        """Return what is asked for."""
        if self.run is not None:
            return RewindToRun(self.run, tuple(self.streams))
        if self.checkpoint is not None:
            return RewindToCheckpoint(self.streams[0], self.checkpoint)
        return RewindToCursor(self.streams[0], self.cursor)


class ImportRequest(BaseModel):
    """The document that an export wrote, or one like it."""

    document: StateDocument
    reason: Reason = ""

    def order(self) -> Order:
        """Return what is asked for."""
        return Import(self.document)


def state_routes(services: Services) -> APIRouter:
    """Return the routes; each asks first whether the caller may see, or change, the connection."""
    router = APIRouter(prefix="/connections/{namespace}/{name}/state")
    pool, may = services.pool, services.authenticator.person

    async def changed(namespace: str, name: str, token: str, order: Order, reason: str) -> list[dict[str, Any]]:
        author = Author(await may(token, "patch", namespace), reason)
        async with pool.connection() as db:
            row = await find_connection(db, namespace, name)
            return await change_state(db, row["uid"], order, author)

    @router.get("")
    async def export_state(namespace: str, name: str, token: Token) -> StateDocument:
        await may(token, "get", namespace)
        async with pool.connection() as db:
            row = await find_connection(db, namespace, name)
            manifest = await definitions.manifest_of(db, row["definition_uid"])
            return await document_of(db, {**row, "manifest": manifest})

    @router.get("/history")
    async def state_history(
        namespace: str, name: str, token: Token, stream: str | None = None, limit: Limit = 20
    ) -> list[dict[str, Any]]:
        await may(token, "get", namespace)
        async with pool.connection() as db:
            row = await find_connection(db, namespace, name)
            return await history.history_of(db, row["uid"], stream, limit)

    @router.get("/changes")
    async def state_changes(namespace: str, name: str, token: Token, limit: Limit = 20) -> list[dict[str, Any]]:
        await may(token, "get", namespace)
        async with pool.connection() as db:
            row = await find_connection(db, namespace, name)
            return await history.changes_of(db, row["uid"], limit)

    @router.post("/reset")
    async def reset_state(namespace: str, name: str, request: ResetRequest, token: Token) -> list[dict[str, Any]]:
        return await changed(namespace, name, token, request.order(), request.reason)

    @router.post("/rewind")
    async def rewind_state(namespace: str, name: str, request: RewindRequest, token: Token) -> list[dict[str, Any]]:
        return await changed(namespace, name, token, request.order(), request.reason)

    @router.post("/import")
    async def import_state(namespace: str, name: str, request: ImportRequest, token: Token) -> list[dict[str, Any]]:
        return await changed(namespace, name, token, request.order(), request.reason)

    return router
