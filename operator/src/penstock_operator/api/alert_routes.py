"""Routes of alerts: list them, and acknowledge one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from penstock_operator import alerts, outbox
from penstock_operator.api import queries
from penstock_operator.api.authentication import Token
from penstock_operator.api.lookups import is_connection_of_tenant, tenant_of
from penstock_operator.api.models import AlertView
from penstock_operator.api.paging import LargePage, Links
from penstock_operator.api.read_routes import OneNamespace
from penstock_operator.api.services import Services
from penstock_operator.errors import Invalid, NotFound
from penstock_operator.ids import AlertId


class Acknowledgement(BaseModel):
    """Why the alert is accepted; the note stays with the alert."""

    note: Annotated[str, Field(max_length=1000)] = ""


def alert_routes(services: Services) -> APIRouter:
    """Return the routes; each checks first that the caller may see, or change, the connections of the namespace."""
    router = APIRouter(prefix="/alerts")
    pool, may = services.pool, services.authenticator.person

    @router.get("")
    async def list_alerts(
        token: Token, page: LargePage, links: Links, namespace: OneNamespace = None, *, resolved: bool = False
    ) -> list[AlertView]:
        """List the open alerts, or the resolved ones, newest first."""
        await may(token, "list", namespace)
        tenant = await tenant_of(services.authenticator, namespace)
        async with pool.connection() as db:
            return links.items(await queries.list_alerts(db, page, namespace, tenant, resolved=resolved))

    @router.post("/{alert}/acknowledge")
    async def acknowledge(alert: AlertId, request: Acknowledgement, token: Token) -> AlertView:
        """Accept the change that an alert reports, which resolves the alert."""
        async with pool.connection() as db:
            found = await queries.alert_by_id(db, alert)
            by = await may(token, "patch", found.namespace)
            connection = await queries.connection_of_alert(db, alert)
            if not await is_connection_of_tenant(db, services.authenticator, connection):
                raise NotFound(f"there is no alert {alert}")
            async with db.transaction():
                uid = await alerts.acknowledge_alert(db, alert, by, request.note)
                if uid is None:
                    raise Invalid(f"alert {alert} is resolved already")
                await outbox.post_status(db, uid)
                return await queries.alert_by_id(db, alert)

    return router
