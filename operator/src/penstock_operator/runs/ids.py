"""Names of runs and Jobs."""

from __future__ import annotations

import secrets
import time

RUN_ID_LENGTH = 22


def new_run_id() -> str:
    """Return RUN_ID_LENGTH hex digits that sort by the millisecond in which they were made."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(5)}"
