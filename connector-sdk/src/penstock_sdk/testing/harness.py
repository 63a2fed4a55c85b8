"""Runs of the real runtime, stored so that several checks can use the same run."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from importlib.util import find_spec
from itertools import cycle, repeat
from pathlib import Path
from typing import Any, Self

import msgspec

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.assignment import AnyConnector
from penstock_sdk._runtime.connector_loader import identity_of, non_secret_credentials
from penstock_sdk._runtime.partition_plan import is_partitioned, plan_from_cursor
from penstock_sdk.contract import Cursor, Op, Partition
from penstock_sdk.errors import ERROR_CLASS_BY_EXIT_CODE, LocalPersistenceError
from penstock_sdk.json_types import JsonObject
from penstock_sdk.testing.attempt_process import MOST_PATIENCE, AttemptResult, RunningAttempt, start_attempt
from penstock_sdk.testing.fault_proxy import through_proxy
from penstock_sdk.testing.fork_server import ForkServer
from penstock_sdk.testing.manifest_fields import ManifestFields
from penstock_sdk.testing.run_api import BRISK, SIDE_BY_SIDE, RequestRefused, RunApi
from penstock_sdk.testing.target import Target, find_connector

MODES: tuple[wire.Mode, ...] = ("full", "incremental")
SHOWN = 200
NEEDS_MANIFEST = "needs a valid manifest: see manifest"


class Failed(Exception):  # noqa: N818 - an outcome
    """The check has found an error of the connector."""


class NotRun(Exception):  # noqa: N818 - an outcome
    """The check needs something that the target does not declare."""


class NotApplicable(Exception):  # noqa: N818 - an outcome
    """The check does not apply to this connector."""


@dataclass
class Trial:
    """One run of the target: its attempts, and the run API that they call."""

    target: Target
    api: RunApi
    fork_servers: Iterator[ForkServer] = field(repr=False)
    attempts: list[AttemptResult] = field(default_factory=list)
    seconds_after_signal: float = 0.0
    _signalled: float | None = None

    def run_attempt(self) -> AttemptResult:
        """Run an attempt to its end."""
        with start_attempt(self.target, self.api, next(self.fork_servers)) as running:
            return self._ended(running)

    def run_until_killed(self, what: str, number: int) -> AttemptResult:
        """Run an attempt that is killed at an event of the run API, before the API answers."""

        def kill(running: RunningAttempt) -> None:
            running.kill()
            if what == "commit":
                raise RequestRefused("unavailable", "the pod was killed before its commit arrived")

        return self._at(what, number, kill)

    def run_until_sigterm(self, what: str, number: int) -> AttemptResult:
        """Run an attempt that gets a SIGTERM at an event of the run API."""

        def stop(running: RunningAttempt) -> None:
            running.child.send(signal.SIGTERM)
            self._signalled = time.monotonic()

        ended = self._at(what, number, stop)
        self.seconds_after_signal = time.monotonic() - self._signalled if self._signalled else ended.seconds
        return ended

    def _at(self, what: str, number: int, act: Any) -> AttemptResult:
        happened = False
        with start_attempt(self.target, self.api, next(self.fork_servers)) as running:

            def moment(said: str, at: int) -> None:
                nonlocal happened
                if not happened and said == what and at >= number:
                    happened = True
                    act(running)

            self.api.moment = moment
            try:
                return self._ended(running)
            finally:
                self.api.moment = lambda _what, _number: None

    def _ended(self, running: RunningAttempt) -> AttemptResult:
        self.attempts.append(running.wait(self.target.patience_seconds, lambda: self.api.progressed))
        return self.attempts[-1]

    @property
    def last(self) -> AttemptResult:
        """The result of the newest attempt."""
        return self.attempts[-1]

    @property
    def report(self) -> wire.FinishRequest | None:
        """The report of the newest attempt, if it sent one."""
        return self.api.finished[-1] if self.api.finished else None

    def records(self, stream: str, op: Op | None = None) -> list[JsonObject]:
        """Return the committed records of a stream: all, or those of one operation."""
        return [line["data"] for line in self.api.state(stream).records if op is None or line["op"] == op]

    @property
    def total(self) -> int:
        """The number of committed records of all streams."""
        return sum(len(state.records) for state in self.api.states.values())

    @property
    def plans(self) -> dict[str, list[Partition]]:
        """The partitions of each partitioned stream, from its first commit."""
        return {
            name: list(plan_from_cursor(state.cursors[0], name).partitions)
            for name, state in self.api.states.items()
            if state.cursors and is_partitioned(state.cursors[0])
        }

    @property
    def commits(self) -> int:
        """The number of checkpoints of all streams."""
        return sum(state.checkpoint for state in self.api.states.values())

    def ending(self) -> str:
        """Return how the newest attempt ended, with its message."""
        code, error = self.last.exit_code, self.report.error if self.report else None
        if code is None:
            return (
                f"it made no progress for {self.target.patience_seconds:.0f} s, or did not end after"
                f" {MOST_PATIENCE} times as many, and it was killed"
            )
        if error is not None:
            return f"it failed with {error.error_class}: {error.message} ({error.operator_message or 'no operator message'})"
        known = ERROR_CLASS_BY_EXIT_CODE.get(code)
        tail = " / ".join(self.last.output.strip().splitlines()[-3:])
        return (
            "it succeeded" if code == 0 else f"it ended with exit code {code}{f' ({known})' if known else ''}: {tail}"
        )

    def expect(self, exit_code: int, meaning: str) -> None:
        """Raise Failed unless the newest attempt ended with this exit code."""
        if self.last.exit_code != exit_code:
            raise Failed(f"{meaning}, but {self.ending()}")


class Harness:
    """Runs the connector of one target. Each kind of run is done once and stored."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.trials: list[Trial] = []
        self.rotated_credentials: dict[str, wire.RotatedCredential] = {}
        self._runs: dict[tuple[str, str, wire.Limits], Trial] = {}
        self._installed = find_connector(target.artifact)
        self.package = self._installed.entry.module.split(".")[0]
        self.distribution = self._installed.entry.dist.name if self._installed.entry.dist else None
        self.version = self._installed.entry.dist.version if self._installed.entry.dist else None
        self._both = (ForkServer(), ForkServer())
        self._fork_servers = cycle(self._both)  # alternating: two processes in a row never have the same order of sets

    def close(self) -> None:
        """End the processes."""
        for fork_server in self._both:
            fork_server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def manifest(self) -> JsonObject:
        """The manifest of the installed package. It may be invalid."""
        return self._installed.manifest()

    @cached_property
    def manifest_fields(self) -> ManifestFields:
        """The fields of the manifest that the checks read. Raises NotRun if one is missing or of another type."""
        try:
            return ManifestFields.parse(self.manifest)
        except msgspec.ValidationError:
            raise NotRun(NEEDS_MANIFEST) from None

    def secrets(self, target: Target) -> dict[str, str]:
        """Return the secret credentials: all except those that the manifest declares `secret: false`."""
        non_secret = non_secret_credentials(self.manifest)
        return {name: value for name, value in target.credentials.items() if name not in non_secret}

    @cached_property
    def connector(self) -> type[AnyConnector]:
        """The connector's class."""
        return self._installed.load()

    @cached_property
    def folder(self) -> Path:
        """The folder of the connector's package. Nothing is imported from it."""
        found = find_spec(self.package)
        return Path(found.origin).parent if found and found.origin else Path(self.package)

    @property
    def identity(self) -> wire.ConnectorIdentity:
        """The three names of the manifest."""
        return identity_of(self.manifest)

    @contextmanager
    def trial(
        self,
        target: Target | None = None,
        *,
        mode: wire.Mode = "full",
        cursors: Mapping[str, Cursor] | None = None,
        since: datetime | None = None,
        window: wire.ReadWindow | None = None,
        limits: wire.Limits = BRISK,
    ) -> Iterator[Trial]:
        """Open a run of the target, or of a variant of it."""
        chosen = target or self.target
        config = chosen.config
        with RunApi(
            self.identity,
            config,
            mode=mode,
            streams=chosen.streams,
            cursors=cursors,
            since=since,
            window=window,
            limits=limits,
            kept=self.rotated_credentials,
        ) as api:
            trial = Trial(chosen, api, self._fork_servers)
            self.trials.append(trial)
            yield trial

    def baseline(self, mode: wire.Mode) -> Trial:
        """Return an undisturbed run. Raises NotRun if it did not succeed, because there is nothing to compare with."""
        trial = self._undisturbed(mode, "first")
        if trial.last.exit_code == LocalPersistenceError.exit_code:
            raise NotRun("needs an undisturbed run that succeeds: see local-writes")
        if trial.last.exit_code != 0:
            raise NotRun("needs an undisturbed run that succeeds: see reads")
        if not trial.total:
            raise NotRun("needs a source with records: the undisturbed run read none")
        return trial

    def second_baseline(self, mode: wire.Mode) -> Trial:
        """Return a second undisturbed run."""
        self.baseline(mode)
        return self._undisturbed(mode, "second")

    def partitioned_baseline(self, mode: wire.Mode, which: str = "first") -> Trial:
        """Return an undisturbed run that reads partitions of streams at the same time."""
        self.baseline(mode)
        trial = self._undisturbed(mode, which, SIDE_BY_SIDE)
        trial.expect(0, f"a {mode} read in partitions should succeed like the read of the whole stream")
        return trial

    @property
    def partitioned_modes(self) -> tuple[wire.Mode, ...]:
        """The modes in which at least one stream is read in partitions."""
        if not any(stream.partitioned for stream in self.catalog):
            return ()
        return tuple(mode for mode in self.modes if self.partitioned_baseline(mode).plans)

    def _undisturbed(self, mode: wire.Mode, which: str, limits: wire.Limits = BRISK) -> Trial:
        key = (mode, which, limits)
        if key not in self._runs:
            with self.trial(mode=mode, limits=limits) as trial:
                trial.fork_servers = repeat(self._both[which == "second"])  # the second run has another order of sets
                trial.run_attempt()
            self._runs[key] = trial
        return self._runs[key]

    def first_run(self, mode: wire.Mode = "full") -> Trial:
        """Return the first undisturbed run, however it ended."""
        return self._undisturbed(mode, "first")

    def forget_runs(self) -> None:
        """Forget all stored runs, because the source has changed."""
        self._runs.clear()

    @property
    def catalog(self) -> list[wire.DiscoveredStream]:
        """The streams that the source offers and the target selects."""
        offered, wanted = self.first_run().api.offered, self.target.streams
        if not offered:
            raise NotRun(f"needs an undisturbed run that gets past discover(): {self.first_run().ending()}")
        return [stream for stream in offered if not wanted or stream.name in wanted]

    @property
    def modes(self) -> tuple[wire.Mode, ...]:
        """The modes in which at least one stream is read."""
        return tuple(mode for mode in MODES if any(mode in stream.modes for stream in self.catalog))

    @property
    def has_proxy(self) -> bool:
        """True if the config holds the address of the source, so that the suite can put a proxy before it."""
        return bool(self.target.url_field or (self.target.host_field and self.target.port_field))

    @cached_property
    def requests(self) -> int:
        """The number of requests, or of connections, of an undisturbed run."""
        if not self.has_proxy:
            raise NotRun(
                "needs source.url, or source.host and source.port: the keys of the config that hold the source's address"
            )
        self.baseline(self.modes[0])
        with through_proxy(self.target) as (moved, proxy), self.trial(moved, mode=self.modes[0]) as trial:
            trial.run_attempt()
            trial.expect(0, "a run through the suite's proxy should end like the undisturbed one")
        if not proxy.requests:
            raise NotRun(
                "needs source.url (or host and port) that the connector uses: no request reached the suite's proxy"
            )
        return len(proxy.requests)

    def compare(self, trial: Trial, mode: wire.Mode, what: str, expected: Trial | None = None) -> None:
        """Raise Failed if the records of a run differ from those of an undisturbed run, by key."""
        expected = expected or self.baseline(mode)
        for stream in self.catalog:
            if mode in stream.modes:
                wrong = difference(expected.records(stream.name), trial.records(stream.name), stream.primary_key)
                if wrong:
                    raise Failed(f"{what}: stream {stream.name!r}, {mode}: {wrong}")


def difference(expected: Sequence[JsonObject], got: Sequence[JsonObject], key: Sequence[str] = ()) -> str | None:
    """Return which records are missing and which are too many, by key, or by content if there is no key."""
    wanted, found = Counter(identity(row, key) for row in expected), Counter(identity(row, key) for row in got)
    lost, extra = wanted - found, found - wanted
    said = []
    if lost:
        said.append(f"{lost.total()} of {wanted.total()} records are missing, such as {next(iter(lost))}")
    if extra:
        said.append(f"{extra.total()} are unexpected, or there twice, such as {next(iter(extra))}")
    return "; ".join(said) or None


def identity(row: JsonObject, key: Sequence[str] = ()) -> str:
    """Return the key of a record as text, or the whole record if there is no key."""
    text = json.dumps({name: row.get(name) for name in key} if key else row, sort_keys=True)
    return text if len(text) < SHOWN else f"{text[:SHOWN]}… ({hashlib.sha256(text.encode()).hexdigest()[:12]})"
