"""The record path against plain msgspec: what the envelope and the bookkeeping cost.

Both sides run in turn in one process and the medians are compared, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec
import zstandard
from penstock_sdk.runtime.encode import Envelope, ObjectEncoder

BATCH = 500
AIM = 1.3
ENVELOPE = Envelope("team", "orders", "bench-rows-1.0.0", "orders", "run-0123456789", 1, 1)
Batches = list[list[dict[str, Any]]]


def record(number: int) -> dict[str, Any]:
    """Return a nested record of about 330 bytes of JSON."""
    return {
        "id": number,
        "created_at": f"2026-01-{number % 28 + 1:02d}T10:{number % 60:02d}:00Z",
        "status": ("open", "paid", "sent", "returned")[number % 4],
        "total": number * 37 % 100_000 / 100,
        "customer": {
            "id": number * 7919 % 50_021,
            "name": f"Customer {number * 31 % 9_973}",
            "email": f"customer{number * 31 % 9_973}@example.com",
        },
        "address": {"street": f"{number % 200} High Street", "city": "Springfield", "country": "GB"},
        "items": [{"sku": f"SKU-{(number + each) % 4_999}", "quantity": each + 1} for each in range(2)],
        "note": None,
    }


def plain(batches: Batches) -> int:
    """Encode and compress without an envelope: the floor."""
    encoder, compressor = msgspec.json.Encoder(), zstandard.ZstdCompressor(level=1).compressobj()
    return sum(len(compressor.compress(encoder.encode_lines(batch))) for batch in batches) + len(compressor.flush())


def enveloped(batches: Batches) -> int:
    """Encode as the runtime does."""
    encoder = ObjectEncoder(ENVELOPE, 1, "2026-01-01T00:00:00.000Z")
    for batch in batches:
        encoder.add(batch, "upsert")
    return len(encoder.finish().body)


def pages(batches: Batches) -> int:
    """As `enveloped`, from pages of JSON that are split and not decoded."""
    encoder = ObjectEncoder(ENVELOPE, 1, "2026-01-01T00:00:00.000Z")
    for page in PAGES:
        encoder.add(page, "upsert")
    del batches
    return len(encoder.finish().body)


PAGES: list[bytes] = []


def seconds(work: Callable[[Batches], int], batches: Batches) -> float:
    """Return how long the work took."""
    begin = time.perf_counter()
    assert work(batches) > 0
    return time.perf_counter() - begin


def main() -> None:
    """Print seconds, rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    rows = [record(number) for number in range(chosen.records)]
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    PAGES.extend(msgspec.json.encode(batch) for batch in batches)
    print(f"{len(rows)} records of {sum(map(len, PAGES)) / len(rows):.0f} B, median of {chosen.rounds} rounds")
    took: dict[str, list[float]] = {"plain": [], "enveloped": [], "pages": []}
    for _ in range(chosen.rounds):
        for work in (plain, enveloped, pages):
            took[work.__name__].append(seconds(work, batches))
    floor = statistics.median(took["plain"])
    for name, times in took.items():
        median = statistics.median(times)
        rounds = [mine / base for mine, base in zip(times, took["plain"], strict=True)]
        spread = f"rounds {min(rounds):.2f}-{max(rounds):.2f}"
        print(f"{name:10} {median:.3f} s {len(rows) / median:>9,.0f} records/s {median / floor:.2f}x ({spread})")
    print(f"aim: enveloped at most {AIM}x")


if __name__ == "__main__":
    main()
