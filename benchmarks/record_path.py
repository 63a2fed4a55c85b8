"""The record path alone (envelope and compression), against the raw limit, in turn."""

from __future__ import annotations

import time
from statistics import median

from penstock_sdk.runtime.encode import Envelope, ObjectEncoder
from raw import BATCH, COUNT, raw_seconds, sample

ROUNDS = 5


def encode_seconds(rows: list[dict[str, object]]) -> float:
    """Return how long the SDK's encoder takes for the rows."""
    encoder = ObjectEncoder(Envelope("team", "people", "faker-generate-0.1.0", "people", "run", 1, 1), 1, "now")
    began = time.perf_counter()
    for index in range(0, len(rows), BATCH):
        encoder.add(rows[index : index + BATCH], "upsert")
    encoder.finish()
    return time.perf_counter() - began


rows = sample()
pairs = [(encode_seconds(rows), raw_seconds(rows)) for _ in range(ROUNDS)]
print(f"record path: {COUNT:,} records, {median(a / b for a, b in pairs):.2f} times the raw limit (median of {ROUNDS})")
