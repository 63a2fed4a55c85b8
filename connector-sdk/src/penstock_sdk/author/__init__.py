"""`penstock-connector`: the command of connector authors, from an empty folder to an image.

The command is public; the modules of this package are internal.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> int:
    """Run the command line. Its libraries are an extra, because a pod does not need them."""
    if find_spec("typer") is None:
        print("penstock-connector needs more libraries: pip install 'penstock-sdk[author]'", file=sys.stderr)  # noqa: T201
        return 2
    from penstock_sdk.author.commands import run

    return run()
