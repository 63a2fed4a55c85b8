"""State changes that annotations ask for: each token is handled once, with an answer in the status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from penstock_operator.connections.connection_store import ConnectionRow
from penstock_operator.errors import Invalid
from penstock_operator.ids import ConnectionUid
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.resources.conditions import moment
from penstock_operator.resources.documents import Metadata
from penstock_operator.resources.models import StateAnswer
from penstock_operator.state import history
from penstock_operator.state.admin import Author, Order, carry_out, hold
from penstock_operator.state.annotations import ANNOTATIONS, StateRequest, author_of, requests


async def handle_state_requests(db: DatabaseConnection, metadata: Metadata, row: ConnectionRow) -> None:
    """Carry out each request that was not handled before; one that cannot be carried out is answered and not tried again."""
    for request in requests(metadata.annotations):
        if row.handled_state_request(request.action) != request.token:
            author = Author(author_of(metadata, ANNOTATIONS[request.action]), f"token {request.token}")
            await _handle(db, row.uid, request, author)


async def _handle(db: DatabaseConnection, uid: ConnectionUid, request: StateRequest, author: Author) -> None:
    async with db.transaction():
        held = await hold(db, uid)
        if held.row.handled(request.action) == request.token:
            return
        try:
            async with db.transaction():
                moved = await carry_out(db, held, _order(request), author)
            answer = _answer(request, "applied", ", ".join(state.stream for state in moved))
        except Invalid as refused:
            answer = _answer(request, "refused", refused.message)
        await history.answer_request(db, uid, answer)


def _order(request: StateRequest) -> Order:
    if request.order is None:
        raise Invalid(request.problem)
    return request.order


def _answer(request: StateRequest, outcome: Literal["applied", "refused"], message: str) -> StateAnswer:
    return StateAnswer(
        action=request.action,
        token=request.token,
        outcome=outcome,
        message=message,
        time=moment(datetime.now(UTC)),
    )
