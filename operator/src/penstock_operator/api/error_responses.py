"""The HTTP answer to each error: its status, and a body that says what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import psycopg
import structlog
from aiohttp import ClientError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kubernetes.aio.client.exceptions import ApiException
from penstock_sdk.protocol import ApiError, ErrorCode
from psycopg_pool import PoolTimeout

from penstock_operator.audit.callers import current_caller
from penstock_operator.errors import (
    Fenced,
    Forbidden,
    Invalid,
    Mismatch,
    NotFound,
    NotReady,
    Refused,
    TooBusy,
    TooLarge,
    TooSlow,
    Unauthenticated,
    Unavailable,
)
from penstock_operator.resources.storable import shown_text

log = structlog.get_logger()
STATUSES: dict[type[Refused], HTTPStatus] = {
    Refused: HTTPStatus.UNPROCESSABLE_ENTITY,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Fenced: HTTPStatus.CONFLICT,
    NotReady: HTTPStatus.TOO_EARLY,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    Mismatch: HTTPStatus.CONFLICT,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    TooSlow: HTTPStatus.REQUEST_TIMEOUT,
    TooBusy: HTTPStatus.SERVICE_UNAVAILABLE,
}
ErrorHandler = Callable[[Request, Exception], Awaitable[JSONResponse]]


def add_error_handlers(app: FastAPI) -> None:
    """Answer each error that a route may raise."""
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)


async def error_response(request: Request, error: Exception) -> JSONResponse | None:
    """Return the answer to an error of a middleware, which the application's handlers do not see; None without one."""
    handler = next((HANDLERS[kind] for kind in type(error).__mro__ if kind in HANDLERS), None)
    return await handler(request, error) if handler else None


def _answer(status: HTTPStatus, code: ErrorCode, message: str) -> JSONResponse:
    _audit(message)
    return JSONResponse(ApiError(code=code, message=message).model_dump(), status_code=status)


def _audit(reason: str) -> None:
    """Keep the reason for the audit of this request."""
    caller = current_caller()
    if caller:
        caller.reason = reason


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)  # noqa: S101 - it is registered for this class only
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    return _answer(status, error.code, error.message)


async def _without_registry(_request: Request, _error: Exception) -> JSONResponse:
    return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "the registry does not answer; try again")


async def _without_kubernetes(_request: Request, error: Exception) -> JSONResponse:
    log.warning("token review failed", error=f"{type(error).__name__}: {error}")
    message = "Kubernetes's API server does not answer as it should; try again"
    return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", message)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    """Return the errors as FastAPI does, but without the input: it may hold a secret, or text that JSON cannot hold."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for this class only
    details = [
        {
            "type": detail["type"],
            "loc": [shown_text(str(name)) for name in detail["loc"]],
            "msg": shown_text(detail["msg"]),
        }
        for detail in error.errors()
    ]
    _audit(f"invalid request: {', '.join(sorted({str(detail.get('type')) for detail in details}))}")
    return JSONResponse({"detail": details}, status_code=HTTPStatus.UNPROCESSABLE_ENTITY)


async def _not_storable(_request: Request, _error: Exception) -> JSONResponse:
    message = "the request holds a value that cannot be stored: a NUL character, half a surrogate pair, or a number out of range"
    return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", message)


HANDLERS: dict[type[Exception], ErrorHandler] = {
    Refused: _refused,
    RequestValidationError: _invalid,
    psycopg.OperationalError: _without_registry,
    PoolTimeout: _without_registry,
    ApiException: _without_kubernetes,
    ClientError: _without_kubernetes,
    psycopg.DataError: _not_storable,
    UnicodeEncodeError: _not_storable,
    RecursionError: _not_storable,
}
