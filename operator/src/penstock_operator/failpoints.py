"""The failpoints of the operator and of the server: places at which a chaos test kills the process.

`penstock_sdk.failpoints` says how the environment variable orders a kill.
"""

from __future__ import annotations

from penstock_sdk.failpoints import reach

__all__ = ["OPERATOR_FAILPOINTS", "SERVER_FAILPOINTS", "reach"]

SERVER_FAILPOINTS = tuple(f"server.{call}" for call in ("start", "streams", "uploads", "checkpoints", "finish"))
"""After the server has carried out a call, and before it answers."""
OPERATOR_FAILPOINTS = (
    "schedule.inserted",
    "schedule.committed",
    "attempt.claimed",
    "attempt.launched",
    "attempt.recorded",
    "attempt.failed",
    "outbox.taken",
    "outbox.acted",
    "outbox.done",
)
"""Between the steps of the scheduler, of the launch of an attempt, and of the outbox."""
