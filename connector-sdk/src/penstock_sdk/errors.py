"""The errors of a connector, named by the reaction that they need.

    ConnectorError                  exit code
    ├── ConfigError                 10  the connection's config must change
    ├── AuthenticationError         11  the credentials must change
    ├── SourceContractError         12  the source differs from what discover() returned
    ├── LocalPersistenceError       13  the connector tried to write to the local file system
    ├── TransientError              20  try again later
    └── DefectError                  1  a defect of the connector

    AttemptEnded                        not an error of the connector: the platform ended the attempt
    ├── AttemptCancelled            30  a person or a policy cancelled the run
    ├── AttemptInterrupted          31  the pod was told to stop (SIGTERM)
    └── AttemptRefused                  the run API refuses every further call of this attempt
        ├── AttemptFenced           32  another attempt has replaced this one
        └── AttemptUnauthenticated  33  the run API does not know the token

An error has a message for the user, which says what to fix and never holds a secret, and a message for the platform's
operator. Any other exception that leaves a connector is reported as a `DefectError`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

__all__ = [
    "ERROR_CLASS_BY_EXIT_CODE",
    "AttemptCancelled",
    "AttemptEnded",
    "AttemptFenced",
    "AttemptInterrupted",
    "AttemptRefused",
    "AttemptUnauthenticated",
    "AuthenticationError",
    "ConfigError",
    "ConnectorError",
    "DefectError",
    "ErrorClass",
    "LocalPersistenceError",
    "Scope",
    "SourceContractError",
    "TransientError",
    "describe_error",
]

ErrorClass = Literal[
    "ConfigError",
    "AuthenticationError",
    "SourceContractError",
    "LocalPersistenceError",
    "TransientError",
    "DefectError",
]
Scope = Literal["source", "stream"]
"""What an error affects: the whole source, or only the stream that was being read."""


class ConnectorError(Exception):
    """The connector cannot continue.

    `message` is for the connection's owner: what is wrong, in which field or key, and what to do. It never holds a secret,
    a record's value or a stack trace. Without a message, it is the first paragraph of the class's docstring.
    `operator_message` is for the platform's operator and may be technical. Raise one of the subclasses.

    Set `scope` to "stream" if the error says nothing about the source's other streams: a lock on one table, a missing
    right on one table, one of several hosts that does not answer. The other streams are then read in the same session. With
    the default, "source", the remaining streams are not read after a TransientError with `retry_after`, nor after three
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

    For errors that the configSchema cannot find: a database that does not exist, an account without API access. The run is
    not retried.
    """

    error_class = "ConfigError"
    exit_code = 10


class AuthenticationError(ConnectorError):
    """The source refused the credentials.

    Raise it at any time, also in the middle of a read, and name the key of the Secret to correct. The run is not retried:
    a wrong password that is sent repeatedly locks accounts.
    """

    error_class = "AuthenticationError"
    exit_code = 11


class SourceContractError(ConnectorError):
    """The source differs from what discover() returned.

    For a stream that no longer exists, a response of another shape, records without a key. The run is not retried.
    """

    error_class = "SourceContractError"
    exit_code = 12


class LocalPersistenceError(ConnectorError):
    """The connector tried to write to the local file system; a connector is stateless, keep state with checkpoint().

    The runtime raises it, and reports it also if the connector catches it. Temporary files belong in the temporary directory.
    """

    error_class = "LocalPersistenceError"
    exit_code = 13


class TransientError(ConnectorError):
    """The source is not available now; a later attempt may succeed.

    For timeouts, refused connections, HTTP 429 and 5xx. `retry_after` is the time that the source asked for, in seconds
    (1 to 86,400; smaller and larger values are set to these limits). It replaces the connection's backoff.
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
    """The pod got a SIGTERM. Committed records stay committed, and a later attempt resumes from there."""

    exit_code = 31


class AttemptRefused(AttemptEnded):
    """The run API refuses every further call of this attempt, also the report of its end."""


class AttemptFenced(AttemptRefused):
    """Another attempt of this run has replaced this one, which cannot commit any more."""

    exit_code = 32


class AttemptUnauthenticated(AttemptRefused):
    """The run API does not know this attempt's token: it is forged, expired, or from another installation."""

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
    """Return the class and the message of an error, or the class alone if its `__str__` fails."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its own __str__ fails
        return type(error).__name__
