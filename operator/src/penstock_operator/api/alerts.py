"""Alerts: what drifted, what came empty, what was rejected; and who has accepted it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from penstock_operator import alerts, outbox
from penstock_operator.api.bearer import Token
from penstock_operator.api.services import Services
from penstock_operator.errors import Invalid, NotFound
from penstock_operator.ids import ConnectionUid

Namespace = Annotated[str | None, Query(max_length=63, description="one namespace; without it, all")]


class Acknowledgement(BaseModel):
    """Why the alert is accepted, for whoever asks later."""

    note: Annotated[str, Field(max_length=1000)] = ""


def alert_routes(services: Services) -> APIRouter:
    """Return the routes; each asks first whether the caller may see, or change, the namespace's connections."""
    router = APIRouter(prefix="/alerts")
    pool, may = services.pool, services.authenticator.person

    @router.get("")
    async def list_alerts(
        token: Token,
        namespace: Namespace = None,
        *,
        resolved: bool = False,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    ) -> list[dict[str, Any]]:
        await may(token, "list", namespace)
        async with pool.connection() as db:
            return await alerts.list_alerts(db, namespace, resolved=resolved, limit=limit)

    @router.post("/{alert}/acknowledge")
    async def acknowledge(alert: int, request: Acknowledgement, token: Token) -> dict[str, Any]:
        async with pool.connection() as db:
            found = await alerts.alert_by_id(db, alert)
            if found is None:
                message = f"there is no alert {alert}"
                raise NotFound(message)
            by = await may(token, "patch", found["namespace"])
            async with db.transaction():
                row = await alerts.acknowledge_alert(db, alert, by, request.note)
                if row is None:
                    message = f"alert {alert} is resolved already"
                    raise Invalid(message)
                await outbox.post_status(db, ConnectionUid(row["connection_uid"]))
        return row

    return router
