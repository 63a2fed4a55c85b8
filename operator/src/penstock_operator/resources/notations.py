"""Durations, amounts of memory and CPU, and moments: values that keep the notation in which a document has them.

A value is made from text when a document is parsed, and it is written back as the same text: `90m` does not become
`1h30m`. The CRD's rules check the notation; a value is converted when a caller reads `seconds`, `bytes` or `moment`.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
MEMORY_UNITS = {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "": 1,
}
MEBIBYTE = 2**20


class Notation(str):
    """Base of the values: text of `shortest` to `longest` characters."""

    __slots__ = ()
    shortest: ClassVar[int] = 0
    longest: ClassVar[int]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate a value as text."""
        text = core_schema.str_schema(min_length=cls.shortest or None, max_length=cls.longest)
        return core_schema.no_info_after_validator_function(cls, text)


class Duration(Notation):
    """A duration such as `1h30m`."""

    __slots__ = ()
    longest: ClassVar[int] = 30

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        seconds, number, unit = 0.0, "", ""
        for char in f"{self}0":
            if char.isdigit() and unit:
                seconds, number, unit = seconds + float(number) * DURATION_UNITS[unit], char, ""
            elif char.isdigit():
                number += char
            else:
                unit += char
        return seconds


class MemorySize(Notation):
    """An amount of memory such as `512Mi`."""

    __slots__ = ()
    longest: ClassVar[int] = 20

    @classmethod
    def of(cls, size: int) -> Self:
        """Return the amount that is exactly so many bytes."""
        return cls(str(size) if size % MEBIBYTE else f"{size // MEBIBYTE}Mi")

    @property
    def bytes(self) -> int:
        """The amount in bytes."""
        number = self.rstrip("KMGTki")
        return int(float(number) * MEMORY_UNITS[self[len(number) :]])


class CpuAmount(Notation):
    """Cores such as `0.5`, or thousandths of a core such as `500m`."""

    __slots__ = ()
    longest: ClassVar[int] = 20

    @property
    def millicores(self) -> float:
        """The amount in thousandths of a core."""
        return float(self[:-1]) if self.endswith("m") else float(self) * 1000


class Moment(Notation):
    """A moment with a zone such as `2026-01-01T00:00:00Z`."""

    __slots__ = ()
    longest: ClassVar[int] = 40

    @property
    def datetime(self) -> datetime:
        """The aware moment. Raises ValueError for a day or an hour that no calendar has, such as 30 February."""
        return datetime.fromisoformat(self)


def about(size: float) -> str:
    """Return an amount of bytes for people to read, in whole Mi."""
    return f"{size / MEBIBYTE:.0f}Mi"
