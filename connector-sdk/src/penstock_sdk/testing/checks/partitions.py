"""Partitions: together they are the stream, each record is in exactly one of them, and their ids stay the same."""

from __future__ import annotations

from penstock_sdk import protocol as wire
from penstock_sdk.contract import Partition
from penstock_sdk.testing.checks.model import Check
from penstock_sdk.testing.harness import Failed, Harness, NotApplicable, NotRun


def partitions(harness: Harness) -> str:
    """Read in partitions, and compare with the read of the whole stream."""
    partitioned = [stream.name for stream in harness.catalog if stream.partitioned]
    if not partitioned:
        raise NotApplicable("no stream declares `partitioned`")
    modes = harness.partitioned_modes
    if not modes:
        raise NotRun(f"needs a source with partitions: partitions() returned none for {', '.join(partitioned)}")
    return "; ".join(_together(harness, mode) for mode in modes)


def _together(harness: Harness, mode: wire.Mode) -> str:
    first, second = harness.partitioned_baseline(mode), harness.partitioned_baseline(mode, "second")
    for name, plan in first.plans.items():
        again = second.plans.get(name, [])
        if _by_id(plan) != _by_id(again):
            raise Failed(f"stream {name!r}: two plans of an unchanged source differ: {_ids(plan)}, then {_ids(again)}")
    harness.compare(first, mode, "the partitions together differ from the whole stream")
    return f"{mode}: {', '.join(f'{name} in {len(plan)} partitions' for name, plan in first.plans.items())}"


def _by_id(plan: list[Partition]) -> dict[str, object]:
    return {partition.id: partition.bounds for partition in plan}


def _ids(plan: list[Partition]) -> str:
    return f"[{', '.join(partition.id for partition in plan)}]"


PARTITIONS = Check(
    "partitions",
    "The partitions of a stream are the whole stream: each record is in exactly one. An unchanged source has the same ones.",
    "Use half-open intervals, the first without a start and the last without an end, and derive the ids from the bounds.",
    partitions,
)
