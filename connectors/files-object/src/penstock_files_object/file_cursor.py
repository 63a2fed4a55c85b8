"""The connector's cursor: which files have been read, and where to resume in a file that was read in part.

This module does no I/O. A file is known by its path and version (the ETag, or the time of its last change). Files are read
in the order of (modified, path). For each path of spec.config.streams a cursor holds

- a floor (modified, path): every file at or below it counts as read;
- the digests of the files above the floor that have been read. They tell apart files that have the same time, files that
  arrive late, and files that were overwritten. A file that goes back to an earlier version is read again.

The floor stays `lookback` behind the newest file that was read, so that there are few digests. It never passes a file that
has not been read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from penstock_sdk import Cursor
from penstock_sdk.json_types import JsonObject

from penstock_files_object.config import display_path

DIGESTS_KEPT = 5000
DIGEST_CHARACTERS = 16
"""Characters of a version's digest. Cursors of older versions hold it alone, newer ones after a digest of the path."""
HIGHEST_PATH = "\U0010ffff"
UNKNOWN_TIME = 253_402_300_800_000
"""The end of the year 9999: a file whose time of change is not known may be new."""

ReadOrder = tuple[int, str]
"""A file's time of change in milliseconds since 1970, and its path: files are read in this order."""
START: ReadOrder = (-1, "")


@dataclass(frozen=True, slots=True)
class File:
    """A file as its store lists it. `path` is the whole address; `modified` is in milliseconds since 1970.

    `listed` is False for an address that the config names without a wildcard: its cursor holds one version and no floor.
    `followable` is False if the store returns nothing that changes with the content. `media_type` is the store's content
    type, if the store was asked for this file alone.
    """

    path: str
    version: str
    modified: int
    size: int | None
    listed: bool = True
    followable: bool = True
    media_type: str = ""

    @property
    def has_modified(self) -> bool:
        """Whether the store returned the time of the last change."""
        return self.modified != UNKNOWN_TIME

    @property
    def name(self) -> str:
        """The path as messages and cursors show it."""
        return display_path(self.path)

    @property
    def digest(self) -> str:
        """A digest of path and version, 16 characters long."""
        return hashlib.blake2b(f"{self.name}\n{self.version}".encode(), digest_size=8).hexdigest()

    @property
    def entry(self) -> str:
        """A digest of the path alone, then the digest, so that a later version replaces an earlier one."""
        return hashlib.blake2b(self.name.encode(), digest_size=6).hexdigest() + self.digest

    @property
    def order(self) -> ReadOrder:
        """The file's place in the order of reading."""
        return (self.modified, self.path)


class FileOffset(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where to resume in a file: at a byte and line of text after decompression, or at a row of Parquet."""

    byte: int = msgspec.field(name="offset", default=0)
    line: int = 0
    row: int = 0


class PathCursor(msgspec.Struct, frozen=True):
    """What was read of one path of the config. `read` has times and entries of files above the floor, and is sorted."""

    floor: ReadOrder = START
    read: tuple[tuple[int, str], ...] = ()

    def pending(self, files: Iterable[File]) -> list[File]:
        """Return the files that have not been read, in order."""
        known = {entry[-DIGEST_CHARACTERS:] for _, entry in self.read}
        return sorted(
            (file for file in files if file.order > self.floor and file.digest not in known),
            key=lambda file: file.order,
        )

    @property
    def is_full(self) -> bool:
        """Whether another digest would raise the floor."""
        return len(self.read) >= DIGESTS_KEPT

    def after(
        self, file: File, lookback: int, kept: int = DIGESTS_KEPT, first_failed: ReadOrder | None = None
    ) -> PathCursor:
        """Return the cursor once `file`, the first of the pending files, is read; `lookback` is in milliseconds.

        `first_failed` is the first earlier file that could not be read: the floor stays below it.
        """
        if not file.listed:
            return PathCursor(read=((file.modified, file.entry),))
        path_digest = file.entry[:-DIGEST_CHARACTERS]
        others = (item for item in self.read if item[1][:-DIGEST_CHARACTERS] != path_digest)
        read = sorted((*others, (file.modified, file.entry)))
        if len(read) > kept:
            return self._shortened(read, file, kept)
        newest = read[-1][0]
        limits = [(newest - lookback, ""), (file.modified, "")]
        if first_failed:
            limits.append((first_failed[0], ""))
        floor = max(self.floor, min(limits))
        return PathCursor(floor, tuple(item for item in read if item[0] >= floor[0]))

    def _shortened(self, read: list[tuple[int, str]], file: File, kept: int) -> PathCursor:
        """Return the cursor with a higher floor, which does not pass `file`: every pending file comes after it."""
        cut = read[len(read) - kept - 1][0]
        floor = (cut, HIGHEST_PATH) if cut < file.modified else file.order
        return PathCursor(max(self.floor, floor), tuple(item for item in read if item[0] > floor[0]))


class PartialFile(msgspec.Struct, frozen=True, rename={"parse_options": "way", "offset": "at"}):
    """A file that was read in part. The offset is valid only for the same version, parsed with the same options."""

    path: str
    version: str
    parse_options: str
    offset: FileOffset


class FilesCursor(msgspec.Struct, frozen=True, rename={"path_cursors": "marks", "current": "within"}):
    """A stream's cursor: what was read of each path, the file that was being read, and other files read in part.

    The JSON names are those of the first version of this connector, so that its cursors stay valid.
    """

    path_cursors: dict[str, PathCursor] = {}
    current: PartialFile | None = None
    stopped: list[PartialFile] = []

    @classmethod
    def parse(cls, cursor: Cursor | None) -> FilesCursor:
        """Parse a committed cursor; None is the cursor of a stream that was never read. Raises ValidationError."""
        return cls() if cursor is None else msgspec.convert(cursor, cls)

    def path_cursor(self, path: str, since: int | None) -> PathCursor:
        """Return the cursor of a path. A path that is new to the connection starts at `since`, or at its first file."""
        return self.path_cursors.get(display_path(path)) or PathCursor(floor=START if since is None else (since, ""))

    def offset(self, file: File, parse_options: str) -> FileOffset | None:
        """Return where to resume in a file; None for its start."""
        partial = self.partial_files.get(file.name)
        is_same = partial and (partial.version, partial.parse_options) == (file.version, parse_options)
        return partial.offset if partial and is_same else None

    @property
    def partial_files(self) -> dict[str, PartialFile]:
        """The files that were read in part, by name."""
        current = [self.current] if self.current else []
        return {partial.path: partial for partial in (*self.stopped, *current)}


def path_cursors_to_json(path_cursors: dict[str, PathCursor]) -> JsonObject:
    """Return path cursors as JSON values. This is done once for each file, and all batches of the file share the result."""
    return {
        path: {"floor": list(value.floor), "read": [list(item) for item in value.read]}
        for path, value in path_cursors.items()
    }
