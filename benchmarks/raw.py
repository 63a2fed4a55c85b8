"""The raw limit that the other figures are set against: msgspec's encode_lines in batches of 500, and zstd level 1."""

from __future__ import annotations

import time

import msgspec
import zstandard
from penstock_faker_generate.connector import records

COUNT, BATCH = 300_000, 500


def sample() -> list[dict[str, object]]:
    """Return the records that both sides encode."""
    return records(0, "people", 0, COUNT)


def raw_seconds(rows: list[dict[str, object]]) -> float:
    """Return how long the raw limit takes for the rows."""
    encoder, compressor = msgspec.json.Encoder(), zstandard.ZstdCompressor(level=1).compressobj()
    began = time.perf_counter()
    for index in range(0, len(rows), BATCH):
        compressor.compress(encoder.encode_lines(rows[index : index + BATCH]))
    compressor.flush()
    return time.perf_counter() - began
