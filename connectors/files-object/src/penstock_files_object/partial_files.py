"""Files that could not be read to their end: where to resume in each, and the error with which the stream ends."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from penstock_sdk import ConnectorError, TransientError
from penstock_sdk.json_types import JsonObject, JsonValue

from penstock_files_object.circuit_breaker import CircuitOpenError
from penstock_files_object.file_cursor import File, FileOffset, FilesCursor, PartialFile

MOST_FAILED_FILES = 100
"""Files that may fail in one read before it ends: each costs a request, and an entry in the cursor."""
MOST_NAMED = 3


class PartialFiles:
    """The offsets at which partly read files resume. The rows before an offset are committed."""

    def __init__(self, cursor: FilesCursor) -> None:
        self._files = cursor.partial_files

    def offset(self, file: File, parse_options: str) -> FileOffset | None:
        """Return where to resume in a file; None for its start."""
        return FilesCursor(stopped=list(self._files.values())).offset(file, parse_options)

    def finish(self, file: File) -> None:
        """Forget a file that was read to its end."""
        self._files.pop(file.name, None)

    def to_json(self, current: PartialFile | None = None) -> JsonObject:
        """Return the cursor's fields about partly read files; `current` is the file that is being read."""
        if current:
            self._files[current.path] = current
        others = [partial for partial in self._files.values() if partial is not current][-MOST_FAILED_FILES:]
        fields: dict[str, JsonValue] = {"within": msgspec.to_builtins(current)} if current else {}
        return {**fields, "stopped": msgspec.to_builtins(others)} if others else fields


@dataclass(frozen=True, slots=True)
class _Failure:
    file: File
    error: ConnectorError


class FailedFiles:
    """The errors of files that could not be read. The files after them are still read."""

    def __init__(self) -> None:
        self._failures = list[_Failure]()

    def add(self, file: File, error: ConnectorError) -> None:
        """Remember an error. Raises it if too many files failed, or if the file's host is not asked any more."""
        self._failures.append(_Failure(file, error))
        if len(self._failures) >= MOST_FAILED_FILES or isinstance(error, CircuitOpenError):
            self.raise_first()

    def raise_first(self) -> None:
        """Raise the first error, with the names of the other files. A transient error comes before all others."""
        if not self._failures:
            return
        first = next(
            (failure for failure in self._failures if isinstance(failure.error, TransientError)), self._failures[0]
        )
        self._failures.remove(first)
        error, others = first.error, self._failures
        if not others:
            raise error
        names = ", ".join(failure.file.name for failure in others[:MOST_NAMED])
        message = f"{error.message}; {len(others)} more files could not be read, such as {names}"
        if isinstance(error, TransientError):
            transient = [error, *(other.error for other in others if isinstance(other.error, TransientError))]
            delays = [failure.retry_after for failure in transient if failure.retry_after is not None]
            raise TransientError(message, retry_after=max(delays, default=None), scope=error.scope) from error
        raise type(error)(message, scope=error.scope) from error
