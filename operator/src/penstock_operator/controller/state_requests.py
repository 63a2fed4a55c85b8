"""State changes that a connection's annotations ask for: each token once, with an answer in the status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from penstock_operator.controller.resources import Document
from penstock_operator.registry import states
from penstock_operator.registry.database import Connection, Row
from penstock_operator.resources.conditions import moment
from penstock_operator.runs.refusals import Invalid
from penstock_operator.runs.state_annotations import ANNOTATIONS, Request, author_of, requests
from penstock_operator.runs.state_changes import Author, Order, carry_out, hold


async def handle_state_requests(connection: Connection, document: Document, row: Row) -> None:
    """Carry out what is asked for and was not yet; one that cannot be carried out is answered and not tried again."""
    metadata = document["metadata"]
    for request in requests(metadata.get("annotations") or {}):
        if row[f"handled_{request.action}"] != request.token:
            author = Author(author_of(metadata, ANNOTATIONS[request.action]), f"token {request.token}")
            await _handle(connection, row["uid"], request, author)


async def _handle(connection: Connection, uid: str, request: Request, author: Author) -> None:
    async with connection.transaction():
        held = await hold(connection, uid)
        if held.row[f"handled_{request.action}"] == request.token:
            return
        try:
            async with connection.transaction():
                moved = await carry_out(connection, held, _order(request), author)
            answer = _answer(request, "applied", ", ".join(each["stream"] for each in moved))
        except Invalid as refused:
            answer = _answer(request, "refused", refused.message)
        await states.answer_request(connection, uid, request.action, request.token, answer)


def _order(request: Request) -> Order:
    if request.order is None:
        raise Invalid(request.problem)
    return request.order


def _answer(request: Request, outcome: str, message: str) -> dict[str, Any]:
    at = moment(datetime.now(UTC))
    return {"action": request.action, "token": request.token, "outcome": outcome, "message": message, "time": at}
