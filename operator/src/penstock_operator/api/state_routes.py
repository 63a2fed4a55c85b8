"""Routes of a connection's state: export, history and audit; reset, rewind and import."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator

from penstock_operator import definitions
from penstock_operator.api import queries
from penstock_operator.api.authentication import Token
from penstock_operator.api.lookups import find_connection
from penstock_operator.api.models import CheckpointView, StateChangeView, StateView
from penstock_operator.api.paging import Links, SmallPage
from penstock_operator.api.services import Services
from penstock_operator.ids import RunId
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


class ResetRequest(BaseModel):
    """The streams to read anew; an empty list means all."""

    streams: StreamNames = []
    reason: Reason = ""

    def order(self) -> Order:
        """Return the change of state that is asked for."""
        return Reset(tuple(self.streams))


class RewindRequest(BaseModel):
    """The target of a rewind: one of run, checkpoint and cursor; the latter two need exactly one stream."""

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
        """Return the change of state that is asked for."""
        if self.run is not None:
            return RewindToRun(RunId(self.run), tuple(self.streams))
        if self.checkpoint is not None:
            return RewindToCheckpoint(self.streams[0], self.checkpoint)
        return RewindToCursor(self.streams[0], self.cursor)


class ImportRequest(BaseModel):
    """The document that an export wrote, or one like it."""

    document: StateDocument
    reason: Reason = ""

    def order(self) -> Order:
        """Return the change of state that is asked for."""
        return Import(self.document)


def state_routes(services: Services) -> APIRouter:
    """Return the routes; each checks first that the caller may see, or change, the connection."""
    router = APIRouter(prefix="/connections/{namespace}/{name}/state")
    pool, may = services.pool, services.authenticator.person

    @router.get("")
    async def export_state(namespace: str, name: str, token: Token) -> StateDocument:
        """Return the state of all streams, as a document that can be imported."""
        await may(token, "get", namespace)
        async with pool.connection() as db:
            row = await find_connection(db, services.authenticator, namespace, name)
            manifest = await definitions.manifest_of(db, row.definition_uid)
            return await document_of(db, row, manifest)

    @router.get("/history")
    async def state_history(
        namespace: str, name: str, token: Token, page: SmallPage, links: Links, stream: str | None = None
    ) -> list[CheckpointView]:
        """List the committed checkpoints, newest first, to which streams can be rewound."""
        await may(token, "get", namespace)
        async with pool.connection() as db:
            row = await find_connection(db, services.authenticator, namespace, name)
            return links.items(await queries.list_checkpoints(db, page, row.uid, stream))

    @router.get("/changes")
    async def state_changes(
        namespace: str, name: str, token: Token, page: SmallPage, links: Links
    ) -> list[StateChangeView]:
        """List the changes of the state by people, newest first."""
        await may(token, "get", namespace)
        async with pool.connection() as db:
            row = await find_connection(db, services.authenticator, namespace, name)
            return links.items(await queries.list_state_changes(db, page, row.uid))

    _add_changes(router, services)
    return router


def _add_changes(router: APIRouter, services: Services) -> None:
    """Add the routes that change a state."""
    pool, may = services.pool, services.authenticator.person

    async def changed(namespace: str, name: str, token: str, order: Order, reason: str) -> list[StateView]:
        author = Author(await may(token, "patch", namespace), reason)
        async with pool.connection() as db:
            row = await find_connection(db, services.authenticator, namespace, name)
            states = await change_state(db, row.uid, order, author)
        return [StateView.model_validate(state, from_attributes=True) for state in states]

    @router.post("/reset")
    async def reset_state(namespace: str, name: str, request: ResetRequest, token: Token) -> list[StateView]:
        """Have streams read anew, into a new generation of their objects."""
        return await changed(namespace, name, token, request.order(), request.reason)

    @router.post("/rewind")
    async def rewind_state(namespace: str, name: str, request: RewindRequest, token: Token) -> list[StateView]:
        """Put streams back to an earlier cursor."""
        return await changed(namespace, name, token, request.order(), request.reason)

    @router.post("/import")
    async def import_state(namespace: str, name: str, request: ImportRequest, token: Token) -> list[StateView]:
        """Put streams to the cursors of a document."""
        return await changed(namespace, name, token, request.order(), request.reason)
