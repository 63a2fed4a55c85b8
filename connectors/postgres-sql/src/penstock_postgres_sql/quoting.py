"""Names as SQL has them, for statements that a message tells its reader to run."""

from __future__ import annotations


def quoted(name: str) -> str:
    """Return a name as SQL has it, whatever characters it is made of."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
