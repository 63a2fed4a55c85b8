"""How long a test waits for what must come.

Only a test that fails waits so long: a slow machine, or one with a fifth of a processor, has time enough. No test
passes because of this number.
"""

from __future__ import annotations

PATIENCE = 300.0
"""Seconds."""
