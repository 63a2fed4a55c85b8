"""Names of runs and Jobs."""

from __future__ import annotations

import secrets
import time


def new_run_id() -> str:
    """Return 22 hex digits that sort by the millisecond in which they were made."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(5)}"
