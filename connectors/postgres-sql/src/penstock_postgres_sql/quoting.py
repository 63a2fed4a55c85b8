"""SQL identifiers in messages that show a statement to run."""

from __future__ import annotations


def quote_name(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
