"""The counters of an attempt."""

from __future__ import annotations

import resource
import threading
from dataclasses import dataclass, field

from penstock_sdk.contract import Op


@dataclass
class Metrics:
    """Cumulative counters. Readers and the uploading and committing threads write them; the heartbeat reads them."""

    stream: str | None = None
    records: int = 0
    bytes_uploaded: int = 0
    objects: int = 0
    checkpoints: int = 0
    partitions: int = 0
    partitions_done: int = 0
    committed: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    read_by_op: dict[str, dict[Op, int]] = field(default_factory=dict)
    suggested: dict[str, dict[str, str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add_records(self, records: int) -> None:
        """Count records that were read."""
        with self._lock:
            self.records += records

    def add_read(self, stream: str, op: Op, records: int) -> None:
        """Count records of a stream that were read, by operation."""
        with self._lock:
            counts = self.read_by_op.setdefault(stream, {})
            counts[op] = counts.get(op, 0) + records

    def add_planned_partitions(self, partitions: int) -> None:
        """Count the partitions of a stream that will be read."""
        with self._lock:
            self.partitions += partitions

    def add_finished_partition(self) -> None:
        """Count a partition that is read to its end."""
        with self._lock:
            self.partitions_done += 1

    def add_object(self, size: int) -> None:
        """Count an uploaded object of `size` bytes."""
        with self._lock:
            self.bytes_uploaded += size
            self.objects += 1

    def add_checkpoint(self, stream: str, records: int, rejected: int = 0) -> None:
        """Count a checkpoint with its committed and its rejected records."""
        with self._lock:
            self.checkpoints += 1
            self.committed[stream] = self.committed.get(stream, 0) + records
            if rejected:
                self.rejected[stream] = self.rejected.get(stream, 0) + rejected

    def snapshot(self) -> dict[str, float]:
        """Return the metrics for a heartbeat."""
        shown = {"records": self.records, "bytes_uploaded": self.bytes_uploaded, "objects": self.objects}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        with self._lock:
            committed, rejected = sum(self.committed.values()), sum(self.rejected.values())
        counts = {"checkpoints": self.checkpoints, "records_committed": committed, "records_rejected": rejected}
        if self.partitions:
            counts |= {"partitions": self.partitions, "partitions_done": self.partitions_done}
        return {**shown, **counts, "rss_peak_bytes": peak}
