"""Incremental reads that lose no record: late, tied, unsorted and moving records, and time windows.

Each function yields batches, which `read` passes on with `yield from`. They are plain generators over the pages that the
author's own code fetches. They need no platform, and hold one page and a limited number of keys in memory.

    follow       a source that filters by >= and sorts by the cursor field
    scan         a source that filters, and returns its records in any order
    in_windows   a source that is queried by time span, [start, end)
    keyset       a complete read in the order of the key, while records are added and deleted

docs/authors/cursors.md says which loss each function prevents, and where a record may be read twice.
"""

from __future__ import annotations

from penstock_sdk.contract import Window
from penstock_sdk.incremental.readers import follow, keyset, scan
from penstock_sdk.incremental.time_windows import in_windows, local_days, windows
from penstock_sdk.incremental.timestamps import comparable, local_time, settled, to_utc
from penstock_sdk.incremental.watermark import CursorField, Watermark

__all__ = [
    "CursorField",
    "Watermark",
    "Window",
    "comparable",
    "follow",
    "in_windows",
    "keyset",
    "local_days",
    "local_time",
    "scan",
    "settled",
    "to_utc",
    "windows",
]
