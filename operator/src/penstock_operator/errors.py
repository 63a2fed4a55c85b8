"""Why the run API refuses a call.

Refused
├── Unauthenticated   the token is not one of ours
├── Fenced            another attempt has taken over, or this one has ended
├── NotReady          try again in a moment
├── Invalid           the request cannot be carried out as it stands
└── Mismatch          the request contradicts what is committed
"""

from __future__ import annotations

from typing import ClassVar

from penstock_sdk.protocol import ErrorCode


class Refused(Exception):  # noqa: N818 - a refusal, answered to the caller
    """The call is refused."""

    code: ClassVar[ErrorCode] = "invalid"
    status: ClassVar[int] = 422

    def __init__(self, message: str | None = None) -> None:
        self.message = message or type(self).__doc__ or ""
        super().__init__(self.message)


class Unauthenticated(Refused):
    """The token is missing, expired or not one of this platform."""

    code = "unauthenticated"
    status = 401


class Forbidden(Refused):
    """The caller may not do this."""

    code = "forbidden"
    status = 403


class NotFound(Refused):
    """There is no such thing."""

    code = "not_found"
    status = 404


class Fenced(Refused):
    """The attempt is not the current one any more; nothing can be committed on its behalf."""

    code = "fenced"
    status = 409


class NotReady(Refused):
    """The attempt is not recorded with its Job yet; ask again in a moment."""

    code = "not_ready"
    status = 425


class Invalid(Refused):
    """The request cannot be carried out."""


class Mismatch(Refused):
    """The request contradicts what is committed."""

    code = "mismatch"
    status = 409
