"""Reads lose no record and read none twice: complete reads, killed reads, and reads that resume from a cursor."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from penstock_sdk import protocol as wire
from penstock_sdk.errors import LocalPersistenceError
from penstock_sdk.json_types import JsonObject, properties_of
from penstock_sdk.testing.checks.model import Check
from penstock_sdk.testing.harness import (
    MODES,
    Failed,
    Harness,
    NotApplicable,
    NotRun,
    Trial,
    difference,
    identity,
)
from penstock_sdk.testing.run_api import BRISK, PRODUCTION, SIDE_BY_SIDE

INTERRUPTED, KILLED = 31, -9


def reads(harness: Harness) -> str:
    """Read every stream in every mode that it offers."""
    said = []
    modes = harness.modes if harness.first_run().api.offered else MODES[:1]
    for mode in modes:
        trial = harness.first_run(mode)
        if trial.last.exit_code != LocalPersistenceError.exit_code:  # the check local-writes reports this
            trial.expect(0, f"a working connection should be read to its end ({mode})")
        harness.baseline(mode)
        report = trial.report
        counted = {name: len(state.records) for name, state in trial.api.states.items() if state.records}
        if report is None or {name: count for name, count in report.records.items() if count} != counted:
            raise Failed(
                f"{mode}: the attempt reported {report.records if report else None} records, and {counted} are committed"
            )
        said.append(f"{mode}: {trial.total} records, {trial.commits} commits")
    return "; ".join(said)


def resume(harness: Harness) -> str:
    """Kill an attempt at each commit, and let the next one resume. The same for a read in partitions, if there are any."""
    said = [_resume(harness, mode, harness.baseline(mode), BRISK) for mode in harness.modes]
    for mode in harness.modes:
        _crash(harness, mode)
    partitioned = [
        _resume(harness, mode, harness.partitioned_baseline(mode), SIDE_BY_SIDE) for mode in harness.partitioned_modes
    ]
    return "; ".join([*said, *(f"in partitions, {text}" for text in partitioned)])


def _resume(harness: Harness, mode: wire.Mode, undisturbed: Trial, limits: wire.Limits) -> str:
    commits = undisturbed.commits
    points = _spread(commits, harness.target.max_kills)
    with harness.trial(mode=mode, limits=limits) as trial:
        trial.run_until_killed("commit", 1)
        _killed(trial, "before its first commit")
        for point in points:
            if trial.commits < point:
                trial.run_until_killed("committed", point)
                if trial.last.exit_code == 0:
                    break
                _killed(trial, f"at commit {point}")
        trial.run_attempt()
        trial.expect(0, f"after {len(points) + 1} kills the last attempt should read to the end")
        harness.compare(trial, mode, f"after a kill at each of {len(points)} commits", undisturbed)
    return f"{mode}: killed before the first commit and at {len(points)} of {commits}, and no record was lost or read twice"


def _crash(harness: Harness, mode: wire.Mode) -> None:
    """Kill an attempt at its first commit with the limits of a cluster, where one commit covers many cursors."""
    with harness.trial(mode=mode, limits=PRODUCTION) as trial:
        trial.run_until_killed("committed", 1)
        _killed(trial, "at its first commit")
        trial.run_attempt()
        trial.expect(0, "after a kill at its first commit the next attempt should read to the end")
        harness.compare(trial, mode, "after a kill at the first commit, with the limits of a cluster")


def _killed(trial: Trial, when: str) -> None:
    if trial.last.exit_code not in (KILLED, 0):
        raise Failed(f"an attempt ended by itself before it was killed {when}: {trial.ending()}")


def _spread(count: int, most: int) -> list[int]:
    """Return the commits at which to kill: all, or `most` evenly spread ones."""
    if count <= most:
        return list(range(1, count + 1))
    return sorted({round(1 + index * (count - 1) / (most - 1)) for index in range(most)})


def reread(harness: Harness) -> str:
    """Read twice from the start."""
    for mode in harness.modes:
        first, second = harness.baseline(mode), harness.second_baseline(mode)
        second.expect(0, f"a second {mode} read should end like the first")
        for stream in harness.catalog:
            wrong = difference(_lines(first, stream.name), _lines(second, stream.name))
            if wrong:
                raise Failed(f"stream {stream.name!r}, {mode}: two reads of an unchanged source differ: {wrong}")
    return "two reads gave the same records, value by value"


def _lines(trial: Trial, stream: str) -> list[JsonObject]:
    return [{"op": line["op"], "data": line["data"]} for line in trial.api.state(stream).records]


def empty(harness: Harness) -> str:
    """Read a source without records."""
    if harness.target.empty is None:
        raise NotRun("needs `empty`: a config (or credentials) for a source without records")
    for mode in harness.modes:
        with harness.trial(harness.target.with_variant(harness.target.empty), mode=mode) as trial:
            trial.run_attempt()
            trial.expect(0, f"a {mode} read of an empty source should succeed with 0 records")
            if trial.total:
                raise NotRun(f"needs `empty` to be a source without records; {trial.total} were read")
    return "an empty source succeeds with 0 records"


def boundary(harness: Harness) -> str:
    """Check both ends of an incremental read: the cursor of a finished run, and `since`."""
    followed = [stream for stream in harness.catalog if "incremental" in stream.modes]
    if not followed:
        raise NotApplicable("no stream is read incrementally")
    plain = harness.baseline("incremental")
    if "incremental" in harness.partitioned_modes:
        _reads_nothing_again(harness, harness.partitioned_baseline("incremental"), followed, SIDE_BY_SIDE)
    for stream in followed:
        field = stream.cursor_field or ""  # the check cursor-safety reports a field that is not in the schema
        if field in properties_of(stream.schema_) and any(row.get(field) is None for row in plain.records(stream.name)):
            raise Failed(f"stream {stream.name!r}: no cursor finds records without a value of {field!r}")
    _reads_nothing_again(harness, plain, followed, BRISK)
    windows = sum(_window(harness, stream) for stream in followed)
    return f"the next run of an unchanged source read no record again; since was tested on {windows} of {len(followed)} streams"


def _reads_nothing_again(
    harness: Harness, finished: Trial, followed: list[wire.DiscoveredStream], limits: wire.Limits
) -> None:
    with harness.trial(mode="incremental", cursors=finished.api.final_cursors(), limits=limits) as trial:
        trial.run_attempt()
        trial.expect(0, "a run from the cursors of a finished run should succeed")
        for stream in followed:
            if trial.records(stream.name):
                again = identity(trial.records(stream.name)[0], stream.primary_key)
                raise Failed(
                    f"stream {stream.name!r}: the next run reads {len(trial.records(stream.name))} records again, such as {again}"
                )


def _window(harness: Harness, stream: wire.DiscoveredStream) -> int:
    """Read with `since` at a value in the middle: that record and all later ones are read, and no earlier one."""
    rows = harness.baseline("incremental").records(stream.name)
    moments = [(moment, row) for row in rows if (moment := _moment(row.get(stream.cursor_field or ""))) is not None]
    if not moments or len(moments) < len(rows):
        return 0  # since applies only to timestamps
    since = sorted(moment for moment, _ in moments)[len(moments) // 2]
    with harness.trial(mode="incremental", since=since) as trial:
        trial.run_attempt()
        trial.expect(0, f"a read since {since.isoformat()} should succeed")
        wanted = [row for moment, row in moments if moment >= since]
        wrong = difference(wanted, trial.records(stream.name), stream.primary_key)
    if wrong:
        raise Failed(f"stream {stream.name!r}, since {since.isoformat()} (inclusive): {wrong}")
    if stream.windows:
        _again(harness, stream, moments)
    return 1


def _again(harness: Harness, stream: wire.DiscoveredStream, moments: list[tuple[datetime, JsonObject]]) -> None:
    """Read the middle half again, killed at its first commit: its start is inclusive, its end exclusive."""
    ordered = sorted(moment for moment, _ in moments)
    window = wire.ReadWindow(start=ordered[len(ordered) // 4], end=ordered[len(ordered) * 3 // 4])
    span = f"stream {stream.name!r}, again from {window.start.isoformat()} (inclusive) to {window.end.isoformat()} (exclusive)"
    with harness.trial(mode="incremental", window=window) as trial:
        trial.run_until_killed("committed", 1)
        trial.run_attempt()
        trial.expect(0, f"{span}: a window should be read to its end")
        wanted = [row for moment, row in moments if window.start <= moment < window.end]
        wrong = difference(wanted, trial.records(stream.name), stream.primary_key)
    if wrong:
        raise Failed(f"{span}: {wrong}")


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def tie(harness: Harness) -> str:
    """Add a record with the cursor's last value, and check that the next run reads it."""
    if "incremental" not in harness.modes:
        raise NotApplicable("no stream is read incrementally")
    followed = [stream for stream in harness.catalog if "incremental" in stream.modes]
    if all(stream.primary_key == [stream.cursor_field] for stream in followed):
        raise NotApplicable("the cursor field is the whole key, so no two records share a value")
    grow = harness.target.grow
    if grow is None:
        raise NotRun("needs `grow`: a command that adds a record whose cursor field has the highest value")
    cursors = harness.baseline("incremental").api.final_cursors()
    before = {stream.name: harness.baseline("incremental").records(stream.name) for stream in harness.catalog}
    grow()
    harness.forget_runs()
    with harness.trial(mode="incremental", cursors=cursors) as trial:
        trial.run_attempt()
        trial.expect(0, "a run after the source has grown should succeed")
        whole = harness.baseline("incremental")
        new = list(_added(harness, trial, whole, before))
    if not sum(new):
        raise NotRun("needs `grow` to add a record; a read from the start found none")
    return f"{sum(new)} late records with the cursor's value were read"


def _added(harness: Harness, trial: Trial, whole: Trial, before: dict[str, list[JsonObject]]) -> Iterator[int]:
    """Yield the number of late records of each stream. The check boundary finds records that are read again."""
    for stream in harness.catalog:
        known = {identity(row, stream.primary_key) for row in before[stream.name]}
        arrived = {identity(row, stream.primary_key) for row in trial.records(stream.name)}
        late = {identity(row, stream.primary_key) for row in whole.records(stream.name)} - known
        if "incremental" in stream.modes and late - arrived:
            raise Failed(
                f"stream {stream.name!r}: added with the cursor's value, and not read: {next(iter(late - arrived))}"
            )
        yield len(late)


def sigterm(harness: Harness) -> str:
    """Send a SIGTERM, and let the next attempt resume. The same for a read in partitions, if there are any."""
    mode = harness.modes[0]
    seconds = _told_to_stop(harness, mode, harness.baseline(mode), BRISK)
    for mode in harness.partitioned_modes[:1]:
        _told_to_stop(harness, mode, harness.partitioned_baseline(mode), SIDE_BY_SIDE)
    return f"it ended {seconds:.1f} s after the signal as interrupted, and no record was lost or read twice"


def _told_to_stop(harness: Harness, mode: wire.Mode, undisturbed: Trial, limits: wire.Limits) -> float:
    with harness.trial(mode=mode, limits=limits) as trial:
        trial.run_until_sigterm("streams", 1)  # the attempt ends after the first batch, which is read later
        if trial.last.exit_code is None or trial.seconds_after_signal > harness.target.grace_seconds:
            raise Failed(
                f"it did not end within {harness.target.grace_seconds:.0f} s of a SIGTERM, the time that a pod has"
            )
        seconds = trial.seconds_after_signal
        trial.expect(INTERRUPTED, "an attempt that gets a SIGTERM should end after the current batch as interrupted")
        trial.run_attempt()
        trial.expect(0, "the attempt after a SIGTERM should read to the end")
        harness.compare(trial, mode, "after a SIGTERM", undisturbed)
    return seconds


READS = Check(
    "reads",
    "A working connection is read to its end in every mode, and the counts agree.",
    "Run `penstock-connector read STREAM` and correct the errors that it shows.",
    reads,
)
CHECKS = (
    Check(
        "resume",
        "After an attempt is killed at any commit, the next one resumes there: no record is lost or read twice.",
        "When read() gets a yielded cursor, it must yield all records after that batch and none of the batch. Keep no state"
        " anywhere else.",
        resume,
    ),
    Check(
        "boundary",
        "A run from a finished run's cursor reads no record again. `since` is inclusive. A window that is read again includes"
        " its start and excludes its end.",
        "Store the keys seen at the cursor's value in the cursor, and drop these records; filter `since` with >=; do not"
        " follow fields that may be null.",
        boundary,
    ),
    Check(
        "reread",
        "Two reads of an unchanged source yield the same records.",
        "Do not add times, random values or run numbers to records; the platform adds its own envelope.",
        reread,
    ),
    Check(
        "empty",
        "A source without records succeeds with 0 records.",
        "Check that a page or a record exists before you access the first or the last one.",
        empty,
    ),
)
SIGTERM = Check(
    "sigterm",
    "After a SIGTERM the attempt ends in time, committed records stay committed, and the next attempt resumes there.",
    "Do not handle signals, and yield batches that take seconds, not minutes.",
    sigterm,
)
TIE = Check(
    "tie",
    "A record that is added later with the cursor's value is read by the next run.",
    "Query the source for values >= the cursor's, and drop the records whose keys are in the cursor.",
    tie,
)
