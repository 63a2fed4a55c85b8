"""One attempt: start, authenticate, health, discover, streams, estimate, read, finish."""

from __future__ import annotations

import errno
import logging
import os
import resource
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata

from penstock_sdk import protocol as wire
from penstock_sdk._contract_checks import offered_streams
from penstock_sdk._rate_leases import RequestLease, use_leases
from penstock_sdk._runtime.assignment import AnyConnector, Assignment
from penstock_sdk._runtime.client import PlatformUnavailableError, RunClient
from penstock_sdk._runtime.connector_factory import ConnectorFactory, close
from penstock_sdk._runtime.credential_store import CredentialStore
from penstock_sdk._runtime.discovery import (
    envelope_window,
    estimate_stream,
    missing_streams,
    stream_to_read,
    streams_request,
)
from penstock_sdk._runtime.encode import Envelope
from penstock_sdk._runtime.heartbeat import Heartbeat
from penstock_sdk._runtime.metrics import Metrics
from penstock_sdk._runtime.partitioned_read import PartitionedRead, plan_read
from penstock_sdk._runtime.stream_outcomes import StreamOutcomes, make_error, protocol_outcomes
from penstock_sdk._runtime.stream_reader import BatchChecks, ReadTask, StreamReader
from penstock_sdk._runtime.write_guard import WriteGuard, no_local_writes
from penstock_sdk._waiting import use_wait
from penstock_sdk.contract import Stream
from penstock_sdk.errors import (
    AttemptCancelled,
    AttemptEnded,
    AttemptRefused,
    ConnectorError,
    DefectError,
    LocalPersistenceError,
    TransientError,
    describe_error,
)

log = logging.getLogger("penstock")
NEW_SESSION_ERRORS = (TransientError, DefectError)
"""Errors after which the next stream is read with a new session."""


class Attempt:
    """The attempt that this process runs."""

    def __init__(self, assignment: Assignment, client: RunClient) -> None:
        self._assignment = assignment
        self._client = client
        self._metrics = Metrics()
        self._outcomes = StreamOutcomes()
        self._mask = assignment.mask
        self._heartbeat: Heartbeat | None = None
        self._write_guard: WriteGuard | None = None
        self._interrupted = False
        self._session_broken = False
        self._call = ""  # the function of the connector that is running, for the message of a defect

    def interrupt(self) -> None:
        """Stop after the current batch. Committed records stay committed."""
        self._interrupted = True
        if self._heartbeat:
            self._heartbeat.interrupt()

    def run(self) -> int:
        """Run the attempt, report its end, and return the exit code."""
        try:
            self._execute()
            self._finish(self._finish_request("succeeded"))
        except AttemptRefused as ended:
            log.warning("%s: %s", type(ended).__name__, ended)
            return ended.exit_code
        except AttemptEnded as ended:
            outcome: wire.Outcome = "cancelled" if isinstance(ended, AttemptCancelled) else "interrupted"
            return self._report(self._finish_request(outcome), ended.exit_code)
        except BaseException as error:  # noqa: BLE001 - any error of a connector is reported by its class
            return self._fail(error)
        finally:
            if self._heartbeat:
                self._heartbeat.stop()
                use_wait(time.sleep)
                use_leases(None)
        counts = [sum(by_stream.values()) for by_stream in (self._metrics.committed, self._metrics.rejected)]
        log.info("succeeded: %d records committed, %d rejected", *counts)
        return 0

    def _execute(self) -> None:
        request = wire.StartRequest(
            run=self._assignment.run,
            attempt=self._assignment.attempt,
            connector=self._assignment.identity,
            sdk_version=metadata.version("penstock-sdk"),
            key=secrets.token_urlsafe(32),
        )
        start = self._client.start(request)
        self._assignment.log_context.update(tenant=start.tenant, connection=start.connection)
        self._heartbeat = Heartbeat(self._client, self._metrics, start.limits.heartbeat_seconds)
        self._heartbeat.start()
        use_wait(self._heartbeat.wait)
        use_leases(self._lease_requests)
        if self._interrupted:
            self._heartbeat.interrupt()
        connector_class = self._assignment.load()  # before the write guard: an import may write its bytecode
        with self._confined_egress(start), no_local_writes() as self._write_guard:
            credentials = self._credentials(start)
            factory = ConnectorFactory(
                connector_class, self._assignment.manifest, start.config, credentials, self._client
            )
            connector = factory.make()
            try:
                self._call = "authenticate"
                connector.authenticate()
                self._call = "health"
                connector.health()
                self._call = "discover"
                offered = {stream.identity: stream for stream in self._discover(connector, start)}
                verdicts = self._verdicts(connector, offered)
                self._estimate(connector, offered, verdicts, start)
                self._call = "read"
                tasks = [self._task(offered[verdict.name], verdict, start) for verdict in verdicts if verdict.read]
                self._refuse(verdicts, offered)
                for task in tasks:
                    connector = self._read_stream(factory, connector, task)
            finally:
                close(connector)
        error = self._outcomes.error()
        if error:
            raise error

    def _lease_requests(self, host: str, port: int, requests: int) -> RequestLease | None:
        lease = self._client.lease_requests(wire.RateLimitRequest(host=host, port=port, requests=requests))
        if lease is None or not lease.limited:
            return None
        return RequestLease(lease.requests, lease.wait_seconds, lease.valid_seconds)

    @contextmanager
    def _confined_egress(self, start: wire.StartResponse) -> Iterator[None]:
        """Have the connector use the egress gateway if the launcher names one, or check its connections if it asks for that."""
        url = os.environ.get(wire.EGRESS_URL_VARIABLE)
        if url:
            direct = os.environ.get(wire.EGRESS_BUCKET_VARIABLE) == "direct"
            gateway = self._client.use_gateway(url, for_bucket=not direct)
            self._mask.add(gateway.token)
            gateway.install(os.environ)
        if url or not os.environ.get(wire.EGRESS_CHECK_VARIABLE):
            yield
            return
        # A pod never needs these, and pays for no import of them.
        from penstock_sdk._runtime.egress_check import EgressCheck
        from penstock_sdk.manifest import Manifest, egress_rules

        manifest = Manifest.model_validate(self._assignment.manifest)
        check = EgressCheck(egress_rules(manifest, start.config))
        self._client.own_traffic = check.platform_traffic
        try:
            with check.installed():
                yield
        finally:
            if check.denials:
                self._client.egress_report(wire.EgressReport(denials=check.denials[: wire.MAX_DENIALS]))

    def _refuse(self, verdicts: list[wire.StreamVerdict], offered: dict[str, Stream]) -> None:
        for verdict in verdicts:
            if verdict.refused:
                stream = offered.get(verdict.name)
                error = (stream and stream.unavailable) or make_error(verdict.error_class, verdict.reason)
                self._outcomes.refuse(verdict.name, verdict.name, error)

    def _read_stream(self, factory: ConnectorFactory, connector: AnyConnector, task: ReadTask) -> AnyConnector:
        """Read a stream, record its outcome, and return the connector for the next stream."""
        stream, outcomes = task.stream.identity, self._outcomes
        if outcomes.source_failed:
            outcomes.skip(stream)
            return connector
        before = self._metrics.committed.get(stream, 0)
        if self._session_broken:
            connector = self._renewed(factory, connector)
        try:
            self._read(factory, connector, task)
        except AttemptEnded:
            raise
        except (LocalPersistenceError, PlatformUnavailableError) as error:  # these end the whole attempt
            outcomes.fail(stream, task.stream.name, error)
            raise
        except BaseException as error:  # noqa: BLE001 - any other error fails this stream only
            known = self._log_error(error)
            outcomes.fail(stream, task.stream.name, known, progressed=self._metrics.committed.get(stream, 0) > before)
            self._session_broken = isinstance(known, NEW_SESSION_ERRORS) and known.scope == "source"
            return connector
        outcomes.succeed(stream)
        return connector

    def _renewed(self, factory: ConnectorFactory, connector: AnyConnector) -> AnyConnector:
        """Return a connector with a new session, because the session of the failed read may be broken."""
        self._session_broken = False
        close(connector)
        renewed = factory.make()
        try:
            renewed.authenticate()
        except ConnectorError as error:
            log.warning("new session refused: %s", self._mask(error.message))
        return renewed

    def _credentials(self, start: wire.StartResponse) -> CredentialStore:
        credentials = CredentialStore(self._assignment.credentials, self._assignment.non_secret, self._mask)
        credentials.apply_rotated(start.credentials)
        return credentials

    def _discover(self, connector: AnyConnector, start: wire.StartResponse) -> list[Stream]:
        offered = offered_streams(connector.discover(), frozenset(stream.name for stream in start.streams))
        for stream in offered:
            if isinstance(stream.unavailable, DefectError):
                log.warning("%s", self._mask(stream.unavailable.message))
        log.info("source offers %d streams", len(offered))
        return [*offered, *missing_streams(connector, offered, [stream.name for stream in start.streams])]

    def _verdicts(self, connector: AnyConnector, offered: dict[str, Stream]) -> list[wire.StreamVerdict]:
        self._check()
        return self._client.streams(streams_request(connector, list(offered.values()), self._mask)).verdicts

    def _estimate(
        self,
        connector: AnyConnector,
        offered: dict[str, Stream],
        verdicts: list[wire.StreamVerdict],
        start: wire.StartResponse,
    ) -> None:
        """Send the expected cost of the streams, so that the platform can refuse a run over its budget before the read."""
        known: dict[str, wire.StreamEstimate] = {}
        for verdict in (verdict for verdict in verdicts if verdict.read):
            stream, since = stream_to_read(offered[verdict.name], verdict.selected, start.since)
            found = estimate_stream(connector, stream, since, verdict.selected.cursor, self._assignment.run)
            self._check()
            if found is not None:
                known[verdict.name] = found
        if known:
            self._client.estimate(wire.EstimateRequest(streams=known))

    def _task(self, stream: Stream, verdict: wire.StreamVerdict, start: wire.StartResponse) -> ReadTask:
        identity = self._assignment.identity
        envelope = Envelope(
            tenant=start.tenant,
            connection=start.connection,
            connector=f"{identity.name}-{identity.method}-{identity.version}",
            stream=stream.identity,
            run=self._assignment.run,
            attempt=self._assignment.attempt,
            schema_version=verdict.schema_version,
            window=envelope_window(verdict.selected),
        )
        asked, since = stream_to_read(stream, verdict.selected, start.since)
        return ReadTask(asked, verdict, start.model_copy(update={"since": since}), envelope)

    def _read(self, factory: ConnectorFactory, connector: AnyConnector, task: ReadTask) -> None:
        reader = StreamReader(
            self._client, self._metrics, task, BatchChecks(self._check, self._check_writes), self._mask
        )
        if task.stream.unavailable:  # an older server does not refuse such a stream
            raise task.stream.unavailable
        with self._named(task.stream.name):
            plan = plan_read(connector, task, self._assignment.run)
            if plan is None:
                reader.read_unpartitioned(connector)
            else:
                PartitionedRead(reader, plan, factory).run(connector)

    @contextmanager
    def _named(self, stream: str) -> Iterator[None]:
        """Name the stream in heartbeats and log lines. After a failure, the log lines still name it."""
        self._metrics.stream = self._assignment.log_context["stream"] = stream
        yield
        self._metrics.stream = None
        del self._assignment.log_context["stream"]

    def _check_writes(self) -> None:
        if self._write_guard:
            self._write_guard.check()

    def _check(self) -> None:
        if self._heartbeat:
            self._heartbeat.check()

    def _metrics_snapshot(self) -> dict[str, float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cost = {"rss_peak_bytes": usage.ru_maxrss * 1024, "cpu_seconds": usage.ru_utime + usage.ru_stime}
        return {**self._metrics.snapshot(), **cost}

    def _fail(self, error: BaseException) -> int:
        known = self._log_error(error)
        report = self._run_error(known)
        return self._report(self._finish_request("failed", report), known.exit_code)

    def _log_error(self, error: BaseException) -> ConnectorError:
        """Log an error, with a stack trace unless the connector raised a ConnectorError, and return it as a ConnectorError."""
        known = error if isinstance(error, ConnectorError) else _defect_from(error, self._call)
        log.error(
            "%s: %s", known.error_class, self._run_error(known).message, exc_info=None if known is error else error
        )
        return known

    def _run_error(self, error: ConnectorError) -> wire.RunError:
        return wire.RunError(
            error_class=error.error_class,
            message=_printable(self._mask(error.message))[: wire.MAX_MESSAGE_CHARACTERS],
            operator_message=_printable(self._mask(error.operator_message))[: wire.MAX_OPERATOR_MESSAGE_CHARACTERS],
            retry_after=error.retry_after if isinstance(error, TransientError) else None,
        )

    def _finish_request(self, outcome: wire.Outcome, error: wire.RunError | None = None) -> wire.FinishRequest:
        counted = self._metrics
        return wire.FinishRequest(
            outcome=outcome,
            error=error,
            records=counted.committed,
            rejected=counted.rejected,
            read={stream: dict(counts) for stream, counts in counted.read_by_op.items()},
            streams=protocol_outcomes(
                self._outcomes,
                {name: self._run_error(error) for name, error in self._outcomes.failed.items()},
                lambda text: _printable(self._mask(text)),
            ),
            pii_suggested={stream: found for stream, found in counted.suggested.items() if found},
            metrics=self._metrics_snapshot(),
        )

    def _report(self, request: wire.FinishRequest, exit_code: int) -> int:
        try:
            self._finish(request)
        except (AttemptEnded, ConnectorError) as error:
            log.warning("finish not reported: %s", self._mask(str(error)))
        return exit_code

    def _finish(self, request: wire.FinishRequest) -> None:
        log.info("finished: outcome %s, run %s", request.outcome, self._client.finish(request).phase)


def _printable(text: str) -> str:
    """Return text that JSON and Postgres can store: a source's message may hold NUL or half a surrogate pair."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


def _defect_from(error: BaseException, call: str) -> DefectError:
    detail = describe_error(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DefectError(
            "the connector filled its temporary directory; write less to it, or raise its size",
            operator_message=detail,
        )
    where = f" in {call}()" if call else ""
    return DefectError(
        f"the connector failed unexpectedly{where} ({type(error).__name__}); see the log of the attempt",
        operator_message=detail,
    )


def run_connector(
    assignment: Assignment, client: RunClient, on_interrupt: Callable[[Callable[[], None]], None] | None = None
) -> int:
    """Run one attempt and return the exit code. `on_interrupt` registers the function that SIGTERM calls."""
    attempt = Attempt(assignment, client)
    if on_interrupt:
        on_interrupt(attempt.interrupt)
    try:
        return attempt.run()
    finally:
        client.close()
