"""`penstock`: one entry point, the roles as subcommands."""

from __future__ import annotations

from penstock_operator.cli.main import main

__all__ = ["main"]
