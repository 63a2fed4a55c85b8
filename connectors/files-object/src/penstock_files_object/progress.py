"""Which files are still to be read, and what a cursor has to hold to say so. Pure.

A file is known by its path and version (the ETag, or the moment of its last change). Files are read in the order of
(modified, path). For each path of the config a mark holds

- a floor (modified, path): whatever is at or below it counts as read;
- the digests of the files above the floor that were read, so that files which share a moment, arrive late, or are
  written anew are told apart, each by itself. A file that goes back to an earlier version is read again.

The floor follows the newest file read at a distance, `lookback`, so that the digests stay few. It never passes a file
that is still to be read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from penstock_files_object.config import shown

DIGESTS_KEPT = 5000
DIGEST = 16
"""Characters of a version's digest. Cursors of older versions hold it alone, newer ones behind a digest of its path."""
HIGHEST = "\U0010ffff"
START = (-1, "")
UNKNOWN = 253_402_300_800_000
"""The end of 9999: a file of which nobody says when it was changed may be new."""


@dataclass(frozen=True, slots=True)
class File:
    """One file as its store lists it. `path` is the whole address, `modified` milliseconds since 1970.

    `listed` is false for an address that the config names itself: its mark holds its one version, and no floor.
    `followable` is false when the store says nothing that changes with the content. `media_type` is what the store says that
    it holds, where it was asked for this file alone.
    """

    path: str
    version: str
    modified: int
    size: int | None
    listed: bool = True
    followable: bool = True
    media_type: str = ""

    @property
    def has_moment(self) -> bool:
        """Say whether the store said when it was changed."""
        return self.modified != UNKNOWN

    @property
    def name(self) -> str:
        """The path, as messages and cursors hold it."""
        return shown(self.path)

    @property
    def digest(self) -> str:
        """What tells this version of this file from all others, in 16 characters."""
        return hashlib.blake2b(f"{self.name}\n{self.version}".encode(), digest_size=8).hexdigest()

    @property
    def entry(self) -> str:
        """The digest behind one of the path alone, so that a later version takes the place of an earlier one."""
        return hashlib.blake2b(self.name.encode(), digest_size=6).hexdigest() + self.digest

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands in the order of reading."""
        return (self.modified, self.path)


@dataclass(frozen=True)
class Mark:
    """What was read of one path of the config; `read` is sorted."""

    floor: tuple[int, str] = START
    read: tuple[tuple[int, str], ...] = ()

    def pending(self, files: Iterable[File]) -> list[File]:
        """Return the files that are still to be read, in order."""
        known = {entry[-DIGEST:] for _, entry in self.read}
        return sorted(
            (each for each in files if each.place > self.floor and each.digest not in known),
            key=lambda each: each.place,
        )

    @property
    def is_full(self) -> bool:
        """Whether it can remember no more files without raising its floor."""
        return len(self.read) >= DIGESTS_KEPT

    def after(
        self, file: File, lookback: int, kept: int = DIGESTS_KEPT, unreadable: tuple[int, str] | None = None
    ) -> Mark:
        """Return the mark once the file is read, the first of those pending; `lookback` is in milliseconds.

        `unreadable` is the place of the first file before it that could not be read: the floor stays below that.
        """
        if not file.listed:
            return Mark(read=((file.modified, file.entry),))
        path = file.entry[:-DIGEST]
        others = (each for each in self.read if each[1][:-DIGEST] != path)
        read = sorted((*others, (file.modified, file.entry)))
        if len(read) > kept:
            return self._shortened(read, file, kept)
        newest = read[-1][0]
        highest = [(newest - lookback, ""), (file.modified, "")]
        if unreadable:
            highest.append((unreadable[0], ""))
        floor = max(self.floor, min(highest))
        return Mark(floor, tuple(each for each in read if each[0] >= floor[0]))

    def _shortened(self, read: list[tuple[int, str]], file: File, kept: int) -> Mark:
        """Return the mark with its floor raised, but never past the file just read: what is pending comes after it."""
        cut = read[len(read) - kept - 1][0]
        place = (cut, HIGHEST) if cut < file.modified else file.place
        return Mark(max(self.floor, place), tuple(each for each in read if each[0] > place[0]))


@dataclass(frozen=True)
class Within:
    """A file that is being read: `at` is the reader's own, and holds only for the same file written the same way."""

    path: str
    version: str
    way: str
    at: dict[str, int]


@dataclass(frozen=True)
class Progress:
    """What a cursor says."""

    marks: dict[str, Mark] = field(default_factory=dict)
    within: Within | None = None
    stopped: list[Within] = field(default_factory=list)

    @classmethod
    def of(cls, cursor: Any) -> Progress:
        """Return what the cursor says; without one, nothing was read."""
        return cls() if cursor is None else msgspec.convert(cursor, cls)

    def mark(self, pattern: str, since: int | None) -> Mark:
        """Return the mark of a path; one that is new to the connection is read from the start, or from `since` on."""
        return self.marks.get(shown(pattern)) or Mark(floor=START if since is None else (since, ""))

    def at(self, file: File, way: str) -> dict[str, int] | None:
        """Return where to go on in a file, None for its start."""
        within = self.places.get(file.name)
        return within.at if within and (within.version, within.way) == (file.version, way) else None

    @property
    def places(self) -> dict[str, Within]:
        """The files that were read in part, by name."""
        return {each.path: each for each in (*self.stopped, *([self.within] if self.within else []))}


def cursor_of(marks: dict[str, Mark]) -> dict[str, Any]:
    """Return what a cursor says of the marks, as JSON; it is made once a file, and shared by the file's batches."""
    return {
        name: {"floor": list(mark.floor), "read": [list(each) for each in mark.read]} for name, mark in marks.items()
    }
