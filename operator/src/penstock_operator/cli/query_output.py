"""The answer of a query, printed: every cell is DuckDB's own text of the value, and in JSON its own JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.cli.output import NOTHING, Output, print_csv, print_table, storable

if TYPE_CHECKING:
    import duckdb


def print_relation(database: duckdb.DuckDBPyConnection, query: str, output: Output) -> None:
    """Run a query and print its rows. Raises CommandError for what DuckDB has against it."""
    import duckdb

    try:
        relation = database.sql(query)
        if relation is None:
            return
        titles = _distinct(relation.columns)
        cell = "to_json(COLUMNS(*))::VARCHAR" if output is Output.json else "COLUMNS(*)::VARCHAR"
        rows = relation.project(cell).fetchall()
    except (duckdb.Error, RuntimeError, UnicodeError) as error:
        raise CommandError(f"DuckDB: {error}") from None
    if output is Output.json:
        lines = ["  {" + ", ".join(map(_member, titles, row)) + "}" for row in rows]
        typer.echo("[\n" + ",\n".join(lines) + "\n]" if lines else "[]")
    elif output is Output.csv:
        print_csv(titles, rows)
    else:
        print_table(titles, [[NOTHING if cell is None else cell for cell in row] for row in rows])


def _member(title: str, cell: str | None) -> str:
    """Return a member of a JSON object; numbers keep all digits, and NaN, which JSON has not, is a string."""
    text = "null" if cell is None else cell
    try:
        json.loads(text, parse_constant=_refuse)
    except ValueError:
        text = json.dumps(text)
    return f"{json.dumps(title)}: {storable(text)}"


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _distinct(columns: list[str]) -> list[str]:
    """Return names of columns that are all different, as DuckDB names those of a subquery."""
    found: list[str] = []
    for column in columns:
        number, name = 1, column
        while name in found:
            name, number = f"{column}_{number}", number + 1
        found.append(name)
    return found
