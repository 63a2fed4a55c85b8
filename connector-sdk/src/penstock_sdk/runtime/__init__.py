"""What runs inside a connector's pod: it claims the attempt, reads, delivers, commits and says how it ended."""

from __future__ import annotations

from penstock_sdk.runtime.main import main
from penstock_sdk.runtime.run import run_connector

__all__ = ["main", "run_connector"]
