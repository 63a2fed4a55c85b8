"""Why a call of the run API or the read API is refused. The API maps each class to an HTTP status.

Refused
├── Unauthenticated   the token is not one of this platform
├── Forbidden         the caller has no right to do this
├── NotFound          the named connection, run or alert does not exist
├── Fenced            another attempt has taken over, or this one has ended
├── NotReady          try again in a moment
├── Unavailable       a server that Penstock needs does not answer; try again
├── Invalid           the request cannot be carried out as it stands
│   └── TooLarge      its body has too many bytes, or too many values
├── Mismatch          the request contradicts what is committed
├── TooSlow           its body did not arrive in time
└── TooBusy           too many requests are in progress; try again
"""

from __future__ import annotations

from typing import ClassVar

from penstock_sdk.protocol import ErrorCode


class Refused(Exception):  # noqa: N818 - a refusal, answered to the caller
    """The call is refused."""

    code: ClassVar[ErrorCode] = "invalid"

    def __init__(self, message: str | None = None) -> None:
        self.message = message or type(self).__doc__ or ""
        super().__init__(self.message)


class Unauthenticated(Refused):
    """The token is missing, expired or not one of this platform."""

    code = "unauthenticated"


class Forbidden(Refused):
    """The caller may not do this."""

    code = "forbidden"


class NotFound(Refused):
    """There is no such thing."""

    code = "not_found"


class Fenced(Refused):
    """The attempt is not the current one any more; nothing can be committed on its behalf."""

    code = "fenced"


class NotReady(Refused):
    """The attempt is not recorded with its Job yet; ask again in a moment."""

    code = "not_ready"


class Unavailable(Refused):
    """A server that Penstock needs does not answer; try again."""

    code = "unavailable"


class Invalid(Refused):
    """The request cannot be carried out."""


class Mismatch(Refused):
    """The request contradicts what is committed."""

    code = "mismatch"


class TooLarge(Invalid):
    """The body of the request is too large."""


class TooSlow(Refused):
    """The body of the request did not arrive in time."""

    code = "unavailable"


class TooBusy(Refused):
    """Too many requests are in progress; try again in a moment."""

    code = "unavailable"
