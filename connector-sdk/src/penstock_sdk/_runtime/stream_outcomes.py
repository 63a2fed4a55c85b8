"""The outcome of each stream of an attempt, and the outcome of the attempt that follows from them.

A failing stream does not stop the others. But if three streams in a row fail in the same way and none of them committed
anything, and the source refuses the credentials or is unavailable, then the source itself fails: the remaining streams
are not read in this attempt. They are not read either if the source has asked to wait. An error whose scope is its stream
counts for neither. When all other streams are read, the attempt fails with the errors of the failed streams.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock_sdk import protocol as wire
from penstock_sdk.errors import (
    AuthenticationError,
    ConfigError,
    ConnectorError,
    DefectError,
    ErrorClass,
    LocalPersistenceError,
    SourceContractError,
    TransientError,
)

SAME_FAILURES = 3
SOURCE_ERRORS = (AuthenticationError, TransientError)
MOST_SHOWN = 10
ERRORS_BY_PRIORITY: dict[ErrorClass, type[ConnectorError]] = {
    error.error_class: error
    for error in (
        LocalPersistenceError,
        TransientError,
        DefectError,
        AuthenticationError,
        ConfigError,
        SourceContractError,
    )
}
"""By priority: if streams failed with different classes, the attempt gets the first of these. A class that is retried comes
before one that is not, so that the streams that can succeed are tried again."""


def make_error(error_class: ErrorClass, message: str) -> ConnectorError:
    """Return an error of a class, by the name of the class."""
    return ERRORS_BY_PRIORITY[error_class](message)


class StreamOutcomes:
    """The outcomes of the streams, in the order in which they are read."""

    def __init__(self) -> None:
        self.succeeded = list[str]()
        self.failed = dict[str, ConnectorError]()
        self.not_read = dict[str, str]()
        self._names = dict[str, str]()
        self._in_a_row = list[ErrorClass]()
        self._retry_later = False

    def succeed(self, stream: str) -> None:
        """Record that a stream was read to its end."""
        self.succeeded.append(stream)
        self._in_a_row.clear()

    def fail(self, stream: str, name: str, error: ConnectorError, *, progressed: bool = False) -> None:
        """Record why a stream failed. `name` is its name in the source; `progressed`: it committed something."""
        self.failed[stream], self._names[stream] = error, name
        if error.scope == "stream":
            return
        self._retry_later |= isinstance(error, TransientError) and error.retry_after is not None
        if progressed or (self._in_a_row and self._in_a_row[-1] != error.error_class):
            self._in_a_row.clear()
        if not progressed and isinstance(error, SOURCE_ERRORS):
            self._in_a_row.append(error.error_class)

    def refuse(self, stream: str, name: str, error: ConnectorError) -> None:
        """Record why a stream cannot be read at all. This says nothing about the other streams."""
        self.failed[stream], self._names[stream] = error, name

    def skip(self, stream: str) -> None:
        """Record that a stream was not read, because the source failed for the streams before it."""
        last = list(self.failed.values())[-1:]
        because = f": {last[0].message}" if last else ""
        self.not_read[stream] = (
            f"not read in this attempt, because the source failed for the streams before it{because}"
        )

    @property
    def source_failed(self) -> bool:
        """True if the source asked to wait, or if so many streams in a row failed that the source must be the reason."""
        return self._retry_later or len(self._in_a_row) >= SAME_FAILURES

    def error(self) -> ConnectorError | None:
        """Return the attempt's error, which names the failed streams; None if no stream failed."""
        if not self.failed:
            return None
        errors = list(self.failed.values())
        kind = next(
            kind for name, kind in ERRORS_BY_PRIORITY.items() if any(error.error_class == name for error in errors)
        )
        message = "; ".join(self._named(stream) for stream in list(self.failed)[:MOST_SHOWN])
        left = [f"and {len(self.failed) - MOST_SHOWN} more streams failed"] if len(self.failed) > MOST_SHOWN else []
        left += [f"{len(self.not_read)} streams were not read"] if self.not_read else []
        message = "; ".join([message, *left])
        operator_message = "; ".join(filter(None, (error.operator_message for error in errors[:MOST_SHOWN])))
        if kind is TransientError:
            return TransientError(message, operator_message=operator_message, retry_after=_longest_retry_after(errors))
        return kind(message, operator_message=operator_message)

    def _named(self, stream: str) -> str:
        message, name = self.failed[stream].message, self._names[stream]
        return message if repr(name) in message or repr(stream) in message else f"stream {name!r}: {message}"


def _longest_retry_after(errors: list[ConnectorError]) -> float | None:
    waits = [
        error.retry_after for error in errors if isinstance(error, TransientError) and error.retry_after is not None
    ]
    return max(waits) if waits else None


def protocol_outcomes(
    outcomes: StreamOutcomes, report: dict[str, wire.RunError], mask: Callable[[str], str]
) -> dict[str, wire.StreamOutcome]:
    """Return the outcomes for the run API. `report` holds the masked errors."""
    return {
        **{stream: wire.StreamOutcome(outcome="succeeded") for stream in outcomes.succeeded},
        **{stream: wire.StreamOutcome(outcome="failed", error=error) for stream, error in report.items()},
        **{
            stream: wire.StreamOutcome(outcome="not_read", reason=mask(reason)[: wire.MAX_MESSAGE_CHARACTERS])
            for stream, reason in outcomes.not_read.items()
        },
    }
