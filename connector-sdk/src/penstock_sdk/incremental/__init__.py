"""Reading without the classic losses: late, tied, unsorted and moving records, and windows over time.

Each function here yields batches that `read` can pass on with `yield from`. They are plain generators over what the
author's own code fetches, need no platform, and hold a page and a bounded memory of keys.

    follow       a source that filters by >= and sorts by the cursor's field
    scan         a source that filters, and gives its records in any order
    in_windows   a source that is asked for a span of time, [start, end)
    keyset       a whole read in the order of the key, while records come and go

docs/authors/cursors.md says which loss each of them prevents, and where a record may come twice.
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
