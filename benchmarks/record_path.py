"""The record path alone (envelope and compression, in one thread), against the raw limit, in turn."""

from __future__ import annotations

import time
from statistics import median

from penstock_sdk.runtime.encode import Cutter, Envelope, LineEncoder, ObjectCompressor
from raw import BATCH, COUNT, raw_seconds, sample

ROUNDS, OBJECT = 7, 50_000  # records of an object: a checkpoint's, as Limits has it
ENVELOPE = Envelope("team", "people", "faker-generate-0.1.0", "people", "0193e0c7a5b87c1d9d3b", 1, 1)


def encode_seconds(rows: list[dict[str, object]]) -> tuple[float, float]:
    """Return how long the SDK's encoder takes for the rows, by the clock and in CPU seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    for sequence, first in enumerate(range(0, len(rows), OBJECT), 1):
        encode_object(sequence, rows[first : first + OBJECT])
    return time.perf_counter() - began, time.process_time() - cpu


def encode_object(sequence: int, rows: list[dict[str, object]]) -> None:
    """Encode one object."""
    encoder, compressor = LineEncoder(ENVELOPE, sequence, "2026-01-01T00:00:00.000Z"), ObjectCompressor()
    cutter = Cutter("people")
    for index in range(0, len(rows), BATCH):
        for chunk in cutter.cut(rows[index : index + BATCH]):
            lines = encoder.encode(chunk, "upsert")
            cutter.learn(len(chunk.rows), len(lines))
            compressor.write(lines)
    compressor.finish(sequence, encoder.records)


rows = sample()
pairs = [(encode_seconds(rows), raw_seconds(rows)) for _ in range(ROUNDS)]
wall, cpu = (median(ours[at] / raw[at] for ours, raw in pairs) for at in (0, 1))
print(f"record path: {COUNT:,} records, {wall:.2f} times the raw limit ({cpu:.2f} in CPU; medians of {ROUNDS} pairs)")
print("             limit: an envelope doubles what a record weighs before compression, and has an id of its own")
