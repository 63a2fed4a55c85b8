"""The raw limit that the other figures are set against: msgspec's encode_lines in batches of 500, and zstd level 1."""

from __future__ import annotations

import time

import msgspec
import zstandard
from penstock_faker_generate.connector import records
from penstock_sdk import Record

COUNT, BATCH = 300_000, 500


def sample() -> list[Record]:
    """Return the records that both sides encode."""
    return records(0, "people", 0, COUNT)


def raw_seconds(rows: list[Record]) -> tuple[float, float]:
    """Return how long the raw limit takes for the rows, by the clock and in CPU seconds."""
    encoder, compressor = msgspec.json.Encoder(), zstandard.ZstdCompressor(level=1).compressobj()
    began, cpu = time.perf_counter(), time.process_time()
    for index in range(0, len(rows), BATCH):
        compressor.compress(encoder.encode_lines(rows[index : index + BATCH]))
    compressor.flush()
    return time.perf_counter() - began, time.process_time() - cpu


if __name__ == "__main__":  # as a process of its own: the rows shall not be in the heap of what it is compared with
    print(*raw_seconds(sample()))
