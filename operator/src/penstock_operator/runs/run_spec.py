"""The spec that a run is pinned to: its connection's when the run was made, and the window that it reads again."""

from __future__ import annotations

from penstock_sdk.protocol import ReadWindow

from penstock_operator.resources.models import ConnectionSpec


class RunSpec(ConnectionSpec):
    """A connection's spec, with the window of a run that reads one again."""

    window: ReadWindow | None = None
    """The span of time that the run reads again; None for every other run."""
