"""A stream's parts: together they are the stream, each record is in one of them, and they keep their names."""

from __future__ import annotations

from penstock_sdk import protocol as wire
from penstock_sdk.contract import Partition
from penstock_sdk.testing.checks.model import Check
from penstock_sdk.testing.harness import Failed, Harness, NotApplicable, NotRun


def partitions(harness: Harness) -> str:
    """Read in parts, and compare with the read in one."""
    split = [stream.name for stream in harness.catalog if stream.partitioned]
    if not split:
        raise NotApplicable("no stream says that it can be split")
    modes = harness.partitioned_modes
    if not modes:
        raise NotRun(f"needs a source that is split: partitions() returned none for {', '.join(split)}")
    return "; ".join(_together(harness, mode) for mode in modes)


def _together(harness: Harness, mode: wire.Mode) -> str:
    first, second = harness.partitioned_baseline(mode), harness.partitioned_baseline(mode, "second")
    for name, parts in first.plans.items():
        again = second.plans.get(name, [])
        if _by_id(parts) != _by_id(again):
            raise Failed(
                f"stream {name!r}: two plans of a source that stood still differ: {_ids(parts)}, then {_ids(again)}"
            )
    harness.compare(first, mode, "the parts together are not what a read in one gives")
    return f"{mode}: {', '.join(f'{name} in {len(parts)} parts' for name, parts in first.plans.items())}"


def _by_id(parts: list[Partition]) -> dict[str, object]:
    return {partition.id: partition.bounds for partition in parts}


def _ids(parts: list[Partition]) -> str:
    return f"[{', '.join(partition.id for partition in parts)}]"


PARTITIONS = Check(
    "partitions",
    "A stream's parts together are the stream: no record is in none of them, or in two; the same source, the same parts.",
    "Make ranges half-open, the first without a start and the last without an end, and their ids from their bounds.",
    partitions,
)
