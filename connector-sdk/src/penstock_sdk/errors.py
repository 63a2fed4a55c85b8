"""What can go wrong in a connector, by the reaction it wants.

    ConnectorError                  exit code
    ├── ConfigError                 10  the connection's config must change
    ├── AuthenticationError         11  the credentials must change
    ├── SourceContractError         12  the source is not what discover() said
    ├── LocalPersistenceError       13  the connector tried to keep something on disk
    ├── TransientError              20  try again later
    └── DefectError                  1  a defect of the connector

    AttemptEnded                        not the connector's fault: the platform took the attempt away
    ├── AttemptCancelled            30  a person or a policy cancelled the run
    ├── AttemptInterrupted          31  the pod was told to stop (SIGTERM)
    └── AttemptRefused                  the run API takes nothing more from this attempt
        ├── AttemptFenced           32  another attempt took over
        └── AttemptUnauthenticated  33  the token is not one that the run API knows

An error carries a message for the user (what to fix, never a secret) and one for whoever operates the
platform. Any other exception that leaves a connector is reported as a `DefectError`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

ErrorClass = Literal[
    "ConfigError",
    "AuthenticationError",
    "SourceContractError",
    "LocalPersistenceError",
    "TransientError",
    "DefectError",
]
Scope = Literal["source", "stream"]
"""What an error says something of: the whole source, or only the stream that was being read."""


class ConnectorError(Exception):
    """The connector could not go on.

    `message` is for the connection's owner: what is wrong, in which field or key, and what to do; never a secret, a
    record's value or a trace. Without one it is the first paragraph of the class's docstring. `operator_message` is for
    whoever runs the platform, and may be technical. Raise one of the subclasses.

    `scope` is "stream" where the error says nothing of the source's other streams: a lock on one table, a right that one
    table lacks, one of several hosts that does not answer. The other streams are read then, in the same session. With the
    default, "source", the streams that are left are not read after a TransientError with `retry_after`, nor after three
    streams in a row failed with an AuthenticationError or a TransientError.
    """

    error_class: ClassVar[ErrorClass] = "DefectError"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None, *, operator_message: str = "", scope: Scope = "source") -> None:
        self.message = str(message or (type(self).__doc__ or type(self).__name__).partition("\n\n")[0])
        self.operator_message = str(operator_message)
        self.scope = scope
        super().__init__(self.message)


class ConfigError(ConnectorError):
    """The connection's config is not usable by this connector.

    For what the configSchema cannot tell: a database that is not there, an account that has no API. Not tried again.
    """

    error_class = "ConfigError"
    exit_code = 10


class AuthenticationError(ConnectorError):
    """The source refused the credentials.

    At any time, also in the middle of a read. Name the Secret's key to correct. Not tried again: a wrong password that
    is sent over and over locks accounts.
    """

    error_class = "AuthenticationError"
    exit_code = 11


class SourceContractError(ConnectorError):
    """The source does not hold what discover() promised.

    A stream that is gone, an answer of another shape, records without a key. Not tried again.
    """

    error_class = "SourceContractError"
    exit_code = 12


class LocalPersistenceError(ConnectorError):
    """The connector tried to write to the local file system; a connector is stateless, keep state with checkpoint().

    The runtime raises it, and reports it even when the connector catches it. Scratch goes to the temporary directory.
    """

    error_class = "LocalPersistenceError"
    exit_code = 13


class TransientError(ConnectorError):
    """The source is not available now; a later attempt may succeed.

    Timeouts, refused connections, 429 and 5xx. `retry_after` is the source's own wish, in seconds (1 to 86,400; less is
    taken as 1, more as a day), and is honoured before the connection's backoff.
    """

    error_class = "TransientError"
    exit_code = 20

    def __init__(
        self,
        message: str | None = None,
        *,
        operator_message: str = "",
        retry_after: float | None = None,
        scope: Scope = "source",
    ) -> None:
        super().__init__(message, operator_message=operator_message, scope=scope)
        if isinstance(retry_after, bool) or not isinstance(retry_after, int | float | None):
            raise TypeError(
                f"retry_after is of type {type(retry_after).__name__}; it must be a number of seconds, or None"
            )
        self.retry_after = retry_after


class DefectError(ConnectorError):
    """The connector failed in a way that its author did not foresee.

    What any other exception becomes. Tried once more, and its trace is in the attempt's log.
    """


class AttemptEnded(Exception):  # noqa: N818 - an ending, not an error of the connector
    """The platform ended the attempt."""

    exit_code: ClassVar[int] = 30


class AttemptCancelled(AttemptEnded):
    """The run was cancelled."""

    exit_code = 30


class AttemptInterrupted(AttemptEnded):
    """The pod was told to stop; what is committed is kept and a later attempt goes on from there."""

    exit_code = 31


class AttemptRefused(AttemptEnded):
    """The run API takes nothing more from this attempt, its end included."""


class AttemptFenced(AttemptRefused):
    """Another attempt of this run has taken over; this one can commit nothing more."""

    exit_code = 32


class AttemptUnauthenticated(AttemptRefused):
    """The run API does not know this attempt's token: it is forged, expired, or of another installation."""

    exit_code = 33


ERROR_CLASS_BY_EXIT_CODE: dict[int, ErrorClass] = {
    error.exit_code: error.error_class
    for error in (
        ConfigError,
        AuthenticationError,
        SourceContractError,
        LocalPersistenceError,
        TransientError,
        DefectError,
    )
}


def describe_error(error: BaseException) -> str:
    """Return an error's class and words; the class alone where it cannot say its words."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its own __str__ fails
        return type(error).__name__
