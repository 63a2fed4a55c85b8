"""Files that could not be read to their end: where each of them stopped, and the error that the stream ends with."""

from __future__ import annotations

from typing import Any

import msgspec
from penstock_sdk import ConnectorError, TransientError

from penstock_files_object.availability import LeftAloneError
from penstock_files_object.progress import File, Progress, Within

MOST_UNREADABLE = 100
"""Files of one read that may fail before it ends: each of them costs a request and a place in the cursor."""
NAMED = 3


class PartlyRead:
    """Where the files that were read in part go on; the rows before that place are committed."""

    def __init__(self, progress: Progress) -> None:
        self._places = progress.places

    def at(self, file: File, way: str) -> dict[str, int] | None:
        """Return where to go on in a file; None for its start."""
        return Progress(stopped=list(self._places.values())).at(file, way)

    def finish(self, file: File) -> None:
        """Forget a file that was read to its end."""
        self._places.pop(file.name, None)

    def cursor(self, within: Within | None = None) -> dict[str, Any]:
        """Return what a cursor says of the files; `within` is the one being read."""
        if within:
            self._places[within.path] = within
        others = [place for place in self._places.values() if place is not within][-MOST_UNREADABLE:]
        said = {"within": msgspec.to_builtins(within)} if within else {}
        return {**said, "stopped": msgspec.to_builtins(others)} if others else said


class UnreadableFiles:
    """The errors of files that could not be read, while the files after them were."""

    def __init__(self) -> None:
        self._errors = list[tuple[File, ConnectorError]]()

    def take(self, file: File, error: ConnectorError) -> None:
        """Remember why a file could not be read; raises if there are too many, or if the store is left alone."""
        self._errors.append((file, error))
        if len(self._errors) >= MOST_UNREADABLE or isinstance(error, LeftAloneError):
            self.tell()

    def tell(self) -> None:
        """Raise the first error, with the names of the other files, if there is one; one that may pass goes before others."""
        if not self._errors:
            return
        at = next((at for at, (_, error) in enumerate(self._errors) if isinstance(error, TransientError)), 0)
        _, first = self._errors.pop(at)
        others = self._errors
        if not others:
            raise first
        names = ", ".join(file.name for file, _ in others[:NAMED])
        message = f"{first.message}; {len(others)} more files could not be read, such as {names}"
        if isinstance(first, TransientError):
            wishes = [error.retry_after for _, error in others if isinstance(error, TransientError)]
            longest = max((wish for wish in (first.retry_after, *wishes) if wish is not None), default=None)
            raise TransientError(message, retry_after=longest, scope=first.scope) from first
        raise type(first)(message, scope=first.scope) from first
