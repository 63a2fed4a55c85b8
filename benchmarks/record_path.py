"""The record path alone (envelope and compression, in one thread), against the raw limit, in turn."""

from __future__ import annotations

import time
from statistics import median

from penstock_faker_generate.connector import SCHEMAS
from penstock_sdk import Record, Stream
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.encode import Chunker, Envelope, LineEncoder, ObjectCompressor
from penstock_sdk._runtime.rejects import RecordValidator
from raw import BATCH, COUNT, raw_seconds, sample

ROUNDS, OBJECT = 7, 50_000  # records of an object: a checkpoint's, as Limits has it
ENVELOPE = Envelope("team", "people", "faker-generate-0.1.0", "people", "0193e0c7a5b87c1d9d3b", 1, 1)


STREAM = Stream(name="people", schema=SCHEMAS["people"], primary_key=("n",))
RULES = {"not looked at": None, "fitting": wire.RejectRules(), "strict": wire.RejectRules(strict=True)}


def encode_seconds(rows: list[Record], rules: wire.RejectRules | None) -> tuple[float, float]:
    """Return how long the SDK's encoder takes for the rows, by the clock and in CPU seconds."""
    validator = RecordValidator(ENVELOPE, STREAM, rules, str) if rules else None
    began, cpu = time.perf_counter(), time.process_time()
    for sequence, first in enumerate(range(0, len(rows), OBJECT), 1):
        encode_object(sequence, rows[first : first + OBJECT], validator)
    return time.perf_counter() - began, time.process_time() - cpu


def encode_object(sequence: int, rows: list[Record], validator: RecordValidator | None) -> None:
    """Encode one object."""
    encoder, compressor = LineEncoder(ENVELOPE, sequence, "2026-01-01T00:00:00.000Z"), ObjectCompressor()
    chunker = Chunker("people")
    for index in range(0, len(rows), BATCH):
        for chunk in chunker.chunks(rows[index : index + BATCH]):
            lines = encoder.lines(validator.rows(chunk), "upsert") if validator else encoder.encode(chunk, "upsert")
            chunker.learn(len(chunk.rows), len(lines))
            compressor.write(lines)
    compressor.finish(sequence, {"upsert": encoder.records})


rows = sample()
taken = [
    ({name: encode_seconds(rows, rules) for name, rules in RULES.items()}, raw_seconds(rows)) for _ in range(ROUNDS)
]
for name in RULES:
    wall, cpu = (median(ours[name][at] / raw[at] for ours, raw in taken) for at in (0, 1))
    beside = median(ours[name][1] / ours["not looked at"][1] for ours, _ in taken)
    print(
        f"record path, {name}: {COUNT:,} records, {wall:.2f} times the raw limit"
        f" ({cpu:.2f} in CPU; {beside:.2f} times that of not looking; medians of {ROUNDS} rounds)"
    )
print("             limit: an envelope doubles what a record weighs before compression, and has an id of its own")
