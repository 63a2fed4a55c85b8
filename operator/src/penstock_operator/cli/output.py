"""How commands print: tables for people, JSON and CSV for scripts. Data is printed as it is, never as markup.

On a terminal a table is as wide as the terminal, and long cells are folded. In a pipe it is as wide as it needs to be:
nothing is folded or cut. In tables and messages, characters that would move a terminal's cursor, or reorder its text,
are shown as escapes.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Generic, TypeVar

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Table
from rich.text import Text

T = TypeVar("T")
Cell = str | int | None
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
NOTHING = "-"
WIDEST = 1_000_000
FIRST_SHARE = 0.5


class Output(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"
    csv = "csv"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="A table for people, or JSON or CSV for scripts.")]


@dataclass(frozen=True)
class ListingColumn(Generic[T]):
    """One column of a listing: its title, and the function that returns the cell of an item."""

    title: str
    cell: Callable[[T], Cell]


def printable(text: str) -> str:
    """Return a text as one line that a terminal shows as it is: control characters become escapes."""
    return UNPRINTABLE.sub(lambda found: _escape(found.group()), text)


def _escape(character: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character) or (
        f"\\x{ord(character):02x}" if ord(character) <= 0xFF else f"\\u{ord(character):04x}"  # noqa: PLR2004 - two digits
    )


def printable_block(text: str) -> str:
    """Return a text that may have several lines, each as `printable` has it; tabs stay."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.splitlines())


def written(text: str) -> str:
    """Return a piece of a log as it is for a pipe or file; a terminal gets control characters as escapes."""
    if not sys.stdout.isatty():
        return storable(text)
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def moment(value: datetime | None) -> str | None:
    """Return a time in UTC, to the second, with its zone."""
    if value is None:
        return None
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def print_rows(items: Sequence[T], columns: Sequence[ListingColumn[T]], output: Output) -> None:
    """Print a listing: as JSON all fields of each item, else the columns."""
    cells = [[column.cell(item) for column in columns] for item in items]
    if output is Output.json:
        print_json(list(items))
    elif output is Output.csv:
        print_csv([column.title for column in columns], cells)
    else:
        print_table([column.title for column in columns], [[_shown(cell) for cell in row] for row in cells])


def _shown(cell: Cell) -> str:
    if cell is None or cell == "":
        return NOTHING
    return f"{cell:,}" if isinstance(cell, int) else cell


def print_json(document: object) -> None:
    """Print models, dataclasses or plain values as indented JSON. It is ASCII, because records may hold any text."""
    typer.echo(json.dumps(to_jsonable_python(document, by_alias=True), indent=2))


def print_csv(titles: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print rows as CSV; a cell without a value is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([storable(title) for title in titles])
    writer.writerows([["" if cell is None else storable(str(cell)) for cell in row] for row in rows])
    typer.echo(text.getvalue(), nl=False)


def storable(text: str) -> str:
    """Return a text that UTF-8 can hold; half a surrogate pair becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; its first column, which names the thing, is not folded where there is room for it."""
    console = Console(width=None if sys.stdout.isatty() else WIDEST, markup=False, highlight=False, emoji=False)
    table = Table()
    for index, title in enumerate(titles):
        longest = max((len(row[index]) for row in rows), default=0)
        table.add_column(
            Text(printable(title)), overflow="fold", no_wrap=index == 0 and longest <= console.width * FIRST_SHARE
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)


def say(line: str) -> None:
    """Print a message on stderr, as it is."""
    errors = Console(stderr=True, markup=False, highlight=False, emoji=False)
    errors.print(Text(printable_block(line)), soft_wrap=True)
