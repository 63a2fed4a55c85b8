"""One attempt, in order: start, authenticate, health, discover, streams, read, finish."""

from __future__ import annotations

import errno
import logging
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata

from penstock_sdk import protocol as wire
from penstock_sdk.contract import Stream
from penstock_sdk.errors import (
    AttemptCancelled,
    AttemptEnded,
    AttemptShutOut,
    ConnectorError,
    DefectError,
    SourceContractError,
    TransientError,
)
from penstock_sdk.runtime.asking import asked_for, catalog_of, estimated, span_of
from penstock_sdk.runtime.assignment import AnyConnector, Assignment
from penstock_sdk.runtime.client import RunClient
from penstock_sdk.runtime.connectors import Connectors, close
from penstock_sdk.runtime.credentials import Credentials
from penstock_sdk.runtime.encode import Envelope
from penstock_sdk.runtime.guard import Guard, no_local_writes
from penstock_sdk.runtime.heartbeat import Heartbeat
from penstock_sdk.runtime.metrics import Metrics
from penstock_sdk.runtime.reading import Border, StreamReader, Task
from penstock_sdk.runtime.splitting import SplitRead, plan_of

log = logging.getLogger("penstock")


class Attempt:
    """The attempt under way."""

    def __init__(self, assignment: Assignment, client: RunClient) -> None:
        self._assignment = assignment
        self._client = client
        self._metrics = Metrics()
        self._mask = assignment.mask
        self._heartbeat: Heartbeat | None = None
        self._guard: Guard | None = None
        self._interrupted = False

    def interrupt(self) -> None:
        """Stop at the next batch border; what is committed is kept."""
        self._interrupted = True
        if self._heartbeat:
            self._heartbeat.interrupt()

    def run(self) -> int:
        """Carry the attempt to its end, report it, and return the exit code."""
        try:
            self._carry()
            self._finish(self._ending("succeeded"))
        except AttemptShutOut as ended:
            log.warning("%s: %s", type(ended).__name__, ended)
            return ended.exit_code
        except AttemptEnded as ended:
            outcome: wire.Outcome = "cancelled" if isinstance(ended, AttemptCancelled) else "interrupted"
            return self._report(self._ending(outcome), ended.exit_code)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever leaves a connector is reported, by its class
            return self._fail(error)
        finally:
            if self._heartbeat:
                self._heartbeat.stop()
        counts = [sum(each.values()) for each in (self._metrics.committed, self._metrics.rejected)]
        log.info("succeeded: %d records committed, %d rejected", *counts)
        return 0

    def _carry(self) -> None:
        wanted = wire.StartRequest(
            run=self._assignment.run,
            attempt=self._assignment.attempt,
            connector=self._assignment.identity,
            sdk_version=metadata.version("penstock-sdk"),
        )
        start = self._client.start(wanted)
        self._assignment.log_context.update(tenant=start.tenant, connection=start.connection)
        self._heartbeat = Heartbeat(self._client, self._metrics, start.limits.heartbeat_seconds)
        self._heartbeat.start()
        if self._interrupted:
            self._heartbeat.interrupt()
        connector_class = self._assignment.load()  # before the guard: an import may cache its bytecode
        with no_local_writes() as self._guard:
            connectors = Connectors(connector_class, start.config, self._credentials(start), self._client)
            connector = connectors.make()
            try:
                connector.authenticate()
                connector.health()
                offered = {stream.identity: stream for stream in self._discover(connector)}
                verdicts = self._verdicts(connector, offered)
                self._estimate(connector, offered, verdicts, start)
                for verdict in verdicts:
                    if verdict.read:
                        self._read(connectors, connector, self._task(offered[verdict.name], verdict, start))
                _raise_refused(verdicts)
            finally:
                close(connector)

    def _credentials(self, start: wire.StartResponse) -> Credentials:
        credentials = Credentials(self._assignment.credentials, self._assignment.shown, self._mask)
        credentials.take(start.credentials)
        return credentials

    def _discover(self, connector: AnyConnector) -> list[Stream]:
        offered = list(connector.discover())
        log.info("the source offers %d streams", len(offered))
        return offered

    def _verdicts(self, connector: AnyConnector, offered: dict[str, Stream]) -> list[wire.StreamVerdict]:
        self._check()
        return self._client.streams(catalog_of(connector, list(offered.values()), self._mask)).verdicts

    def _estimate(
        self,
        connector: AnyConnector,
        offered: dict[str, Stream],
        verdicts: list[wire.StreamVerdict],
        start: wire.StartResponse,
    ) -> None:
        """Ask what each stream will cost, and let the platform refuse a run over its budget before it reads anything."""
        known: dict[str, wire.StreamEstimate] = {}
        for verdict in (each for each in verdicts if each.read):
            stream, since = asked_for(offered[verdict.name], verdict.selected, start.since)
            found = estimated(connector, stream, since, verdict.selected.cursor, self._assignment.run)
            self._check()
            if found is not None:
                known[verdict.name] = found
        if known:
            self._client.estimate(wire.EstimateRequest(streams=known))

    def _task(self, stream: Stream, verdict: wire.StreamVerdict, start: wire.StartResponse) -> Task:
        identity = self._assignment.identity
        envelope = Envelope(
            tenant=start.tenant,
            connection=start.connection,
            connector=f"{identity.name}-{identity.method}-{identity.version}",
            stream=stream.identity,
            run=self._assignment.run,
            attempt=self._assignment.attempt,
            schema_version=verdict.schema_version,
            window=span_of(verdict.selected),
        )
        asked, since = asked_for(stream, verdict.selected, start.since)
        return Task(asked, verdict, start.model_copy(update={"since": since}), envelope)

    def _read(self, connectors: Connectors, connector: AnyConnector, task: Task) -> None:
        reader = StreamReader(self._client, self._metrics, task, Border(self._check, self._check_writes))
        with self._named(task.stream.name):
            ranges = plan_of(connector, task, self._assignment.run)
            if ranges is None:
                reader.read_whole(connector)
            else:
                SplitRead(reader, ranges, connectors).run(connector)

    @contextmanager
    def _named(self, stream: str) -> Iterator[None]:
        """Say in heartbeats and log lines which stream is being read; a failure's lines still say it."""
        self._metrics.stream = self._assignment.log_context["stream"] = stream
        yield
        self._metrics.stream = None
        del self._assignment.log_context["stream"]

    def _check_writes(self) -> None:
        if self._guard:
            self._guard.check()

    def _check(self) -> None:
        if self._heartbeat:
            self._heartbeat.check()

    def _numbers(self) -> dict[str, float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cost = {"rss_peak_bytes": usage.ru_maxrss * 1024, "cpu_seconds": usage.ru_utime + usage.ru_stime}
        return {**self._metrics.numbers(), **cost}

    def _fail(self, error: Exception | SystemExit) -> int:
        known = error if isinstance(error, ConnectorError) else _as_defect(error)
        report = wire.RunError(
            error_class=known.error_class,
            message=_printable(self._mask(known.message))[:2000],
            operator_message=_printable(self._mask(known.operator_message))[:4000],
            retry_after=known.retry_after if isinstance(known, TransientError) else None,
        )
        log.error("%s: %s", report.error_class, report.message, exc_info=None if known is error else error)
        return self._report(self._ending("failed", report), known.exit_code)

    def _ending(self, outcome: wire.Outcome, error: wire.RunError | None = None) -> wire.FinishRequest:
        counted = self._metrics
        return wire.FinishRequest(
            outcome=outcome,
            error=error,
            records=counted.committed,
            rejected=counted.rejected,
            pii_suggested={stream: found for stream, found in counted.suggested.items() if found},
            metrics=self._numbers(),
        )

    def _report(self, request: wire.FinishRequest, exit_code: int) -> int:
        try:
            self._finish(request)
        except (AttemptEnded, ConnectorError) as error:
            log.warning("the attempt's end could not be reported: %s", self._mask(str(error)))
        return exit_code

    def _finish(self, request: wire.FinishRequest) -> None:
        log.info("finish: %s, run is %s", request.outcome, self._client.finish(request).phase)


def _raise_refused(verdicts: list[wire.StreamVerdict]) -> None:
    """Fail once everything else is read: a refused stream holds up no other, and is no success."""
    reasons = [verdict.reason for verdict in verdicts if verdict.refused]
    if reasons:
        raise SourceContractError("; ".join(reasons))


def _printable(text: str) -> str:
    """Return text that JSON and Postgres hold: a source's own words may have NUL or half a surrogate pair in them."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


def _as_defect(error: Exception | SystemExit) -> DefectError:
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DefectError(
            "the connector filled its temporary directory; it may keep scratch there and no more than it holds",
            operator_message=detail,
        )
    return DefectError(
        f"the connector failed unexpectedly ({type(error).__name__}); its log says more", operator_message=detail
    )


def run_connector(
    assignment: Assignment, client: RunClient, on_interrupt: Callable[[Callable[[], None]], None] | None = None
) -> int:
    """Carry one attempt and return the exit code; `on_interrupt` registers what SIGTERM calls."""
    attempt = Attempt(assignment, client)
    if on_interrupt:
        on_interrupt(attempt.interrupt)
    try:
        return attempt.run()
    finally:
        client.close()
