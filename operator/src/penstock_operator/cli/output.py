"""Tables: as wide as the terminal; in a pipe, as wide as they need to be."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 240


def print_table(table: Table) -> None:
    """Print a table; its first column, which names the thing, is never cut."""
    table.columns[0].no_wrap = True
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)
