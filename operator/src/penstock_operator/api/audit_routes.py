"""The route of the audit: who did what, newest first."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from penstock_operator.api import queries
from penstock_operator.api.authentication import Token
from penstock_operator.api.lookups import tenant_of
from penstock_operator.api.models import AuditEventView
from penstock_operator.api.paging import LargePage, Links
from penstock_operator.api.read_routes import OneNamespace
from penstock_operator.api.services import Services
from penstock_operator.audit.events import Action, Result

Text = Annotated[str | None, Query(max_length=320)]


def audit_routes(services: Services) -> APIRouter:
    """Return the route; it checks first that the caller may list the connections of the namespace, or of all."""
    router = APIRouter(prefix="/audit")
    pool, may = services.pool, services.authenticator.person

    @router.get("")
    async def list_audit_events(
        token: Token,
        page: LargePage,
        links: Links,
        namespace: OneNamespace = None,
        actor: Annotated[Text, Query(description="events of this person, pod or `controller`")] = None,
        action: Annotated[Action | None, Query(description="events of this action")] = None,
        result: Annotated[Result | None, Query(description="`allowed`, `refused` or `failed`")] = None,
        since: Annotated[AwareDatetime | None, Query(description="events of this time or later")] = None,
        until: Annotated[AwareDatetime | None, Query(description="events before this time")] = None,
    ) -> list[AuditEventView]:
        """List the events of the audit, newest first. Uids and groups are shown only without a namespace."""
        await may(token, "list", namespace)
        tenant = await tenant_of(services.authenticator, namespace)
        filters = queries.AuditFilter(namespace, actor, action, result, since, until, tenant)
        async with pool.connection() as db:
            return links.items(await queries.list_audit_events(db, page, filters))

    return router
