"""Pages that are garbage are freed soon.

The collector's thresholds count objects, and the runtime has raised them. An HTTP response is a handful of objects in
a cycle that holds a whole page: at 100,000 objects a connector would hold a thousand pages before any is freed
(measured: reading 65 MB took 64 MB; with this, 7 MB). Young objects are few at a batch's border, and looking at them
there is cheap.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

COLLECT_SECONDS = 0.1


class YoungGenerationCollector:
    """Collects at batch borders, a few times a second at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def batch_ended(self) -> None:
        """Free what the last batches left behind."""
        if self._clock() - self._last >= COLLECT_SECONDS:
            gc.collect(0)
            self._last = self._clock()
