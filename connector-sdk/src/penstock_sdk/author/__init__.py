"""`penstock-connector`: what an author works with, from an empty folder to an image."""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> int:
    """Run the command line; its libraries are no part of what a pod needs."""
    if find_spec("typer") is None:
        print("penstock-connector needs what authors need: pip install 'penstock-sdk[author]'", file=sys.stderr)  # noqa: T201
        return 2
    from penstock_sdk.author.commands import run

    return run()
