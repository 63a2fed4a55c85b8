"""Middleware that opens the caller of each request, and audits the requests that are refused or fail.

What is allowed is recorded where it is done, in its own transaction. `CALLS` names the action of every call that changes
something; a test finds a route without one.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import NamedTuple

from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock_operator.audit.callers import Caller, calling
from penstock_operator.audit.events import Action, AuditedObject, AuditEvent, ObjectKind
from penstock_operator.audit.refusal_recorder import RefusalRecorder
from penstock_operator.ids import Namespace, ObjectId

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
RETRY = frozenset({HTTPStatus.TOO_EARLY, HTTPStatus.REQUEST_TIMEOUT})
"""Statuses that ask for the same request again: nothing was refused."""
ACCESS_DENIED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class Call(NamedTuple):
    """A call of the API: what it does, and to what."""

    action: Action
    kind: ObjectKind


READ = Call(Action.api_read, "api")
CALLS: dict[str, Call] = {
    "/v1/attempts/start": Call(Action.attempt_start, "attempt"),
    "/v1/attempts/streams": Call(Action.attempt_streams, "attempt"),
    "/v1/attempts/estimate": Call(Action.attempt_estimate, "attempt"),
    "/v1/attempts/uploads": Call(Action.attempt_uploads, "attempt"),
    "/v1/attempts/checkpoints": Call(Action.attempt_checkpoint, "attempt"),
    "/v1/attempts/credentials": Call(Action.credential_write, "credential"),
    "/v1/attempts/credentials/lease": Call(Action.credential_lease, "credential"),
    "/v1/attempts/credentials/release": Call(Action.credential_release, "credential"),
    "/v1/attempts/heartbeat": Call(Action.attempt_heartbeat, "attempt"),
    "/v1/attempts/finish": Call(Action.attempt_finish, "attempt"),
    "/v1/attempts/rate-limit": Call(Action.rate_limit_lease, "attempt"),
    "/v1/attempts/egress": Call(Action.egress_read, "attempt"),
    "/v1/attempts/egress/report": Call(Action.egress_report, "attempt"),
    "/v1/runs": Call(Action.run_create, "connection"),
    "/v1/runs/backfill": Call(Action.run_backfill, "connection"),
    "/v1/runs/reread": Call(Action.run_reread, "connection"),
    "/v1/runs/{run_id}/cancel": Call(Action.run_cancel, "run"),
    "/v1/connections/{namespace}/{name}/state/reset": Call(Action.state_reset, "connection"),
    "/v1/connections/{namespace}/{name}/state/rewind": Call(Action.state_rewind, "connection"),
    "/v1/connections/{namespace}/{name}/state/import": Call(Action.state_import, "connection"),
    "/v1/alerts/{alert}/acknowledge": Call(Action.alert_acknowledge, "alert"),
}
"""Every POST of the API, by the path of its route."""
NOT_RECORDED_IF_ALLOWED = frozenset(
    {Action.attempt_heartbeat, Action.egress_read, Action.egress_report, Action.rate_limit_lease}
)
"""Calls that come every few seconds and change nothing that is shown. Their refusals are recorded."""
ROUTES = tuple((compile_path(path)[0], call) for path, call in CALLS.items())


class _Matched(NamedTuple):
    call: Call
    namespace: Namespace | None = None
    name: str | None = None
    id: ObjectId | None = None


def match(method: str, path: str) -> _Matched | None:
    """Return the call of a request with the object that its path names; None for one that does nothing."""
    if method == "POST":
        for pattern, call in ROUTES:
            found = pattern.fullmatch(path)
            if found:
                names = {key: value for key, value in found.groupdict().items() if NAME.fullmatch(value)}
                namespace, id_ = names.get("namespace"), names.get("run_id") or names.get("alert")
                return _Matched(
                    call,
                    Namespace(namespace) if namespace else None,
                    names.get("name"),
                    ObjectId(id_) if id_ else None,
                )
    return _Matched(READ) if path.startswith("/v1/") else None


class RefusalAudit:
    """The middleware."""

    def __init__(self, app: ASGIApp, recorder: RefusalRecorder) -> None:
        self._app = app
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and audit it if it was refused."""
        request = Request(scope) if scope.get("type") == "http" else None
        matched = match(request.method, request.url.path) if request else None
        if matched is None:
            await self._app(scope, receive, send)
            return
        status = 0

        async def send_and_see(message: Message) -> None:
            nonlocal status
            status = status or message.get("status", 0)
            await send(message)

        client = scope.get("client")
        with calling(client[0] if client else None) as caller:
            try:
                await self._app(scope, receive, send_and_see)
            except Exception as error:
                caller.reason = f"a defect of Penstock: {type(error).__name__}"
                await self._record(matched, caller, HTTPStatus.INTERNAL_SERVER_ERROR)
                raise
            if status >= HTTPStatus.BAD_REQUEST and status not in RETRY:
                await self._record(matched, caller, status)

    async def _record(self, matched: _Matched, caller: Caller, status: int) -> None:
        if matched.call is READ and status not in ACCESS_DENIED:
            return
        target = caller.target or AuditedObject(matched.call.kind)
        if caller.actor.kind != "anonymous":
            target = AuditedObject(
                target.kind if caller.target else matched.call.kind,
                target.namespace or matched.namespace,
                target.name or matched.name,
                target.id or matched.id,
            )
        event = AuditEvent(
            matched.call.action,
            target,
            "failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "refused",
            caller.reason or HTTPStatus(status).phrase,
            caller.actor,
        )
        await self._recorder.record(event, HTTPStatus(status).phrase)
