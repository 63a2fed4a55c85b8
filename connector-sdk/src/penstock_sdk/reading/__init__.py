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
from penstock_sdk.reading.border import Border, Trail
from penstock_sdk.reading.following import follow, keyset, scan
from penstock_sdk.reading.moments import in_order, moment, settled, wall_clock
from penstock_sdk.reading.windows import in_windows, local_days, windows

__all__ = [
    "Border",
    "Trail",
    "Window",
    "follow",
    "in_order",
    "in_windows",
    "keyset",
    "local_days",
    "moment",
    "scan",
    "settled",
    "wall_clock",
    "windows",
]
