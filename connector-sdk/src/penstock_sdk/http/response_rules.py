"""From a response to the error that says what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from penstock_sdk.errors import AuthenticationError, ConfigError, ConnectorError, SourceContractError, TransientError
from penstock_sdk.http.response import Response

LONGEST_DETAIL = 300
BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
"""The source asks to wait. The wait costs no attempt."""
UNAVAILABLE = frozenset({
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.LOCKED,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
})  # fmt: skip
"""The request may succeed soon, as after most statuses from 500 on. It is sent again if it only reads."""
MESSAGE_FIELDS = ("error.message", "message", "error_description", "error", "detail", "title", "errors")
"""Where sources put the text of an error."""
Scalar = str | int | float | bool


class NotFoundError(SourceContractError):
    """The source does not have this resource (HTTP 404 or 410)."""


class ExpiredCursorError(SourceContractError):
    """The source no longer knows the cursor of the last read: reset the stream's state to read it from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseRule:
    """Responses that are an error of a class, such as a 200 with an error inside.

    A rule matches a response that has the `status` (None: any), the `field` of the JSON body (a path) and the `header`. The
    field must have the `value`; without a value it must be present and neither null, false, 0 nor empty. The same holds for
    the header and `header_value`.

    `error` is the class to raise. TransientError means that the source asks to wait: the client waits as after a 429, and
    sends the request again. `message` says what to do; without it, the message has the text that the source sent, from
    `message_field` or the usual fields.
    """

    error: type[ConnectorError]
    status: int | None = None
    field: str | None = None
    value: Scalar | None = None
    header: str | None = None
    header_value: str | None = None
    message: str = ""
    message_field: str | None = None

    def __post_init__(self) -> None:
        if self.status is None and self.field is None and self.header is None:
            raise ValueError(
                "ResponseRule: give a status, a field or a header; without them, every response is an error"
            )

    def matches(self, response: Response) -> bool:
        """Return True if the response is this error."""
        return (
            self.status in (None, response.status) and self._header_matches(response) and self._field_matches(response)
        )

    def _header_matches(self, response: Response) -> bool:
        if self.header is None:
            return True
        found = response.headers.get(self.header, "").strip()
        return bool(found) if self.header_value is None else found == self.header_value

    def _field_matches(self, response: Response) -> bool:
        if self.field is None:
            return True
        try:
            found = response.field(self.field)
        except SourceContractError:  # the body is not JSON, so it has no field
            return False
        return bool(found) if self.value is None else type(found) is type(self.value) and found == self.value


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that a response is. If the source only asks to wait, the same request succeeds later."""

    error: ConnectorError
    asks_to_wait: bool = False


def failure_of(response: Response, rules: Sequence[ResponseRule], credentials: str) -> Failure | None:
    """Return the error that a response is, by the first rule that matches or by its status; None for a usable response.

    `credentials` says where the credentials are, for messages.
    """
    for rule in rules:
        if rule.matches(response):
            error = rule.error(rule.message or _text_of(rule, response))
            return Failure(error, asks_to_wait=isinstance(error, TransientError))
    if HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    return Failure(_by_status(response, credentials), asks_to_wait=response.status in BUSY)


def _text_of(rule: ResponseRule, response: Response) -> str:
    detail = _detail(response, rule.message_field)
    return f"{response.place} is an error{_said(detail)}" if detail else ""


def _by_status(response: Response, credentials: str) -> ConnectorError:
    place, said = f"{response.place} is HTTP {response.status}", _said(_detail(response, None))
    match response.status:
        case HTTPStatus.UNAUTHORIZED:
            error: ConnectorError = AuthenticationError(
                f"the source refuses the credentials (HTTP 401): correct {credentials}{said}"
            )
        case HTTPStatus.FORBIDDEN:
            error = AuthenticationError(
                f"{place}: give {credentials} the right or the scope for it{said}", scope="stream"
            )
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            error = NotFoundError(f"{place}: the source does not have it{said}")
        case HTTPStatus.PAYMENT_REQUIRED:
            error = ConfigError(f"{place}: the account has to pay for it{said}")
        case HTTPStatus.NOT_IMPLEMENTED:
            error = SourceContractError(f"{place}{said}")
        case status if status in BUSY or status in UNAVAILABLE or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            error = TransientError(f"{place}{said}")
        case _:
            error = SourceContractError(f"{place}{said}")
    return error


def _said(detail: str) -> str:
    return f"; the source says: {detail}" if detail else ""


def _detail(response: Response, field: str | None) -> str:
    """Return the text with which the source explains an error, on one line; empty without one."""
    for path in MESSAGE_FIELDS if field is None else (field,):
        try:
            found = response.field(path)
        except SourceContractError:
            return ""
        if isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, str) and found.strip():
            words = " ".join(found.split())
            return "".join(character for character in words if character.isprintable())[:LONGEST_DETAIL]
    return ""
