"""The run protocol: what a pod may do on behalf of its attempt. The fencing is here.

Every write holds the run row for its transaction and goes through only while the attempt is the current one, so
that a pod which was paused and wakes up later can change nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from penstock_sdk.manifest import normal_host, rate_rules
from penstock_sdk.protocol import (
    PROTOCOL_VERSION,
    CheckpointRequest,
    CheckpointResponse,
    CredentialLeaseRequest,
    CredentialLeaseResponse,
    CredentialReleaseRequest,
    CredentialReleaseResponse,
    CredentialRequest,
    CredentialResponse,
    EgressDestination,
    EgressReport,
    EgressReportResponse,
    EgressResponse,
    EstimateRequest,
    EstimateResponse,
    FinishRequest,
    FinishResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    Limits,
    ObjectToUpload,
    RateLimitRequest,
    RateLimitResponse,
    StartRequest,
    StartResponse,
    StreamsRequest,
    StreamsResponse,
    UploadGrant,
    UploadsRequest,
    UploadsResponse,
)

from penstock_operator import outbox
from penstock_operator.audit import audit_store
from penstock_operator.audit.callers import concerns, identify_pod
from penstock_operator.audit.events import Action, AuditedObject
from penstock_operator.bronze.keys import object_key
from penstock_operator.bronze.store import UPLOAD_EXPIRY, BronzeStore
from penstock_operator.connections import connection_store
from penstock_operator.credentials import credential_leases
from penstock_operator.credentials.credential_leases import LeaseHolder
from penstock_operator.credentials.vault import CredentialOwner, Vault
from penstock_operator.errors import Fenced, Invalid, Mismatch, NotReady, Unauthenticated
from penstock_operator.ids import AttemptNumber, ConnectionUid, Namespace, NamespaceUid, ObjectId, RunId, StreamName
from penstock_operator.rate_limits import leases
from penstock_operator.registry.database import DatabaseConnection, Pool
from penstock_operator.runs import (
    attempt_states,
    attempt_store,
    bronze_objects,
    budget,
    checkpoint,
    conservation,
    egress_records,
    read_anomalies,
    run_store,
    selection,
    state_store,
    stream_outcomes,
    stream_verdicts,
    transitions,
    upload_grants,
)
from penstock_operator.runs.attempt_store import AttemptOutcome, CarriedAttempt, HeldAttempt
from penstock_operator.runs.bronze_objects import Grant
from penstock_operator.runs.checkpoint import ObjectProof
from penstock_operator.runs.compatibility import check_artifact, check_protocol, check_state_versions
from penstock_operator.runs.retry import AttemptFailure
from penstock_operator.runs.run_store import Run
from penstock_operator.runs.stream_outcomes import RunStream
from penstock_operator.schemas import schema_store

LATE_CREDENTIAL = timedelta(minutes=10)
"""For how long after its end an attempt may store what a provider has given it: nobody else has the value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobIdentity:
    """A Job of the cluster, as the API server holds it."""

    namespace: Namespace
    namespace_uid: NamespaceUid
    name: str
    connection_uid: ConnectionUid | None
    """The uid of the TenantConnection that controls it; None where none does."""
    run_id: RunId
    attempt: AttemptNumber
    """Run and attempt of its labels; an empty text and 0 where it has none."""


@dataclass(frozen=True)
class PodIdentity:
    """Who calls start: a pod, and the Job that controls it, as the platform's own authority says."""

    pod_uid: str
    job_uid: str
    job: JobIdentity | None = None
    """None on one machine, where the platform itself made the token for the process."""


def check_identity(pod: PodIdentity, launch: CarriedAttempt, namespace_uid: NamespaceUid | None) -> None:
    """Raise Unauthenticated unless the pod is one of the attempt's own Job.

    `namespace_uid` is that of the connection's namespace; None where the controller could not read it.
    """
    job = pod.job
    expected = job and JobIdentity(
        namespace=launch.namespace,
        namespace_uid=namespace_uid or job.namespace_uid,
        name=launch.job_name,
        connection_uid=launch.connection_uid,
        run_id=launch.run_id,
        attempt=launch.attempt,
    )
    if launch.job_uid != pod.job_uid or job != expected:
        message = "the token belongs to a pod of another Job"
        raise Unauthenticated(message)


def digest(token: str) -> bytes:
    """Return what the registry keeps of a token."""
    return hashlib.sha256(token.encode()).digest()


def derived_token(key: str, salt: bytes, launch: CarriedAttempt, pod: PodIdentity) -> str:
    """Return the run token of a process. Without its key, which only the process has, nobody can compute it."""
    claim = "\n".join((launch.run_id, str(launch.attempt), pod.pod_uid)).encode()
    return base64.urlsafe_b64encode(hmac.digest(key.encode(), salt + claim, "sha256")).rstrip(b"=").decode()


class RunProtocol:
    """The seven calls of a pod."""

    def __init__(
        self, pool: Pool, store: BronzeStore, limits: Limits | None = None, vault: Vault | None = None
    ) -> None:
        self._pool = pool
        self._store = store
        self._limits = limits or Limits()
        self._vault = vault or Vault(())

    async def start(self, pod: PodIdentity, request: StartRequest) -> StartResponse:
        """Give the attempt to the pod of its own Job, with all it needs to know; one that can never run fails, and says why."""
        try:
            return await self._start(pod, request)
        except Invalid as refused:
            await self._fail_start(request, refused)
            raise

    async def _start(self, pod: PodIdentity, request: StartRequest) -> StartResponse:
        async with self._pool.connection() as db, db.transaction():
            if not await run_store.hold_run(db, request.run, request.attempt):
                raise Fenced
            launch = await attempt_store.attempt_to_launch(db, request.run, request.attempt)
            if launch is None or launch.job_uid is None:
                raise NotReady
            connection = await connection_store.connection_by_uid(db, launch.connection_uid)
            started = ObjectId(f"{launch.run_id}/{launch.attempt}")
            concerns("attempt", launch.namespace, launch.name, started)
            check_identity(pod, launch, connection.namespace_uid if connection else None)
            key = check_protocol(request)
            check_artifact(request, launch)
            token = await self._claim(db, launch, pod, key)
            states = await attempt_states.of_attempt(db, launch)
            kept = await self._vault.kept(db, launch.connection_uid)
            await outbox.post_statuses(db, [launch.connection_uid])
            audited = AuditedObject("attempt", launch.namespace, launch.name, started)
            await audit_store.record(db, Action.attempt_start, audited)
        check_state_versions(launch.manifest.state_version, states)
        return self._answer(request, launch, token).model_copy(update={"credentials": kept})

    async def _claim(self, db: DatabaseConnection, launch: CarriedAttempt, pod: PodIdentity, key: str) -> str:
        """Give the attempt to the process that has the key, and return its run token."""
        run, attempt = launch.run_id, launch.attempt
        salt = await attempt_store.claim_attempt(db, run, attempt, pod.pod_uid, digest(key), secrets.token_bytes(32))
        if salt is None:
            raise Fenced
        token = derived_token(key, salt, launch, pod)
        await attempt_store.set_token(db, run, attempt, digest(token))
        return token

    async def _fail_start(self, request: StartRequest, refused: Invalid) -> None:
        """End the attempt with the reason, which the pod's exit code alone would not tell the connection's owner."""
        ending = AttemptOutcome("failed", "ConfigError", "ConfigError", refused.message)
        async with self._pool.connection() as db, db.transaction():
            run = await transitions.current(db, request.run, request.attempt)
            if run:
                await transitions.fail(db, run, ending, AttemptFailure("ConfigError"))

    def _answer(self, request: StartRequest, launch: CarriedAttempt, token: str) -> StartResponse:
        spec = launch.spec
        return StartResponse(
            run_token=token,
            protocol=PROTOCOL_VERSION,
            tenant=launch.namespace,
            connection=launch.name,
            connector=request.connector,
            config=spec.config,
            streams=[selection.selected(stream.name, stream.mode, None, request.run) for stream in spec.streams],
            since=spec.since,
            state_version=launch.manifest.state_version,
            limits=self._limits.model_copy(update={"parallelism": spec.parallelism}),
            rejects=read_anomalies.reject_rules(spec),
        )

    @asynccontextmanager
    async def _held(
        self, token: str, action: Action, reason: str = ""
    ) -> AsyncIterator[tuple[DatabaseConnection, HeldAttempt]]:
        """Open a transaction that holds the run of the token's attempt; Fenced when it is not the current one.

        What the attempt does is audited in the same transaction.
        """
        async with self._pool.connection() as db, db.transaction():
            attempt = await _attempt_of(db, token)
            if attempt.finished_at or not await run_store.hold_run(db, attempt.run_id, attempt.attempt):
                raise Fenced
            yield db, attempt
            await audit_store.record(db, action, attempt.audited, reason=reason)

    async def is_run_token(self, token: str) -> bool:
        """Return True if an attempt, ended or not, has this token."""
        async with self._pool.connection() as db:
            return await attempt_store.has_token(db, digest(token))

    async def streams(self, token: str, request: StreamsRequest) -> StreamsResponse:
        """Compare what the source offers with the registry, and say which streams to read from where."""
        offer = await stream_verdicts.read_offer(request)
        async with self._held(token, Action.attempt_streams) as (connection, attempt):
            prefix = self._store.settings.prefix
            verdicts = await stream_verdicts.judge_streams(connection, attempt, offer, prefix)
        return StreamsResponse(verdicts=verdicts)

    async def estimate(self, token: str, request: EstimateRequest) -> EstimateResponse:
        """Keep what the run is expected to cost, and refuse it when that is over its budget."""
        async with self._held(token, Action.attempt_estimate) as (connection, attempt):
            await run_store.set_estimate(connection, attempt.run_id, budget.as_document(request.streams))
        refused = budget.over_budget(attempt.spec.budget, request.streams)
        if refused:
            raise Invalid(refused)
        return EstimateResponse()

    async def uploads(self, token: str, request: UploadsRequest) -> UploadsResponse:
        """Grant uploads. The same request again gives the same keys."""
        reason = f"{len(request.objects)} objects of stream {request.stream}"
        async with self._held(token, Action.attempt_uploads, reason) as (connection, attempt):
            upload_grants.check_allowed(attempt, request.stream)
            generation = await state_store.generation_of(connection, attempt.connection_uid, request.stream)
            wanted = [self._grant(attempt, request, generation, uploaded) for uploaded in request.objects]
            grants = await upload_grants.record(connection, wanted)
        expiry = datetime.now(UTC) + UPLOAD_EXPIRY
        return UploadsResponse(grants=[self._signed(grant) for grant in grants], expires_at=expiry)

    def _grant(self, attempt: HeldAttempt, request: UploadsRequest, generation: int, uploaded: ObjectToUpload) -> Grant:
        path = (attempt.namespace, attempt.name, request.stream)
        run = (attempt.run_id, attempt.attempt, uploaded.sequence)
        return Grant(
            key=object_key(self._store.settings.prefix, path, generation, run, request.kind),
            connection_uid=attempt.connection_uid,
            stream=StreamName(request.stream),
            generation=generation,
            run_id=attempt.run_id,
            attempt=attempt.attempt,
            sequence=uploaded.sequence,
            kind=request.kind,
            bytes=uploaded.bytes,
            sha256=uploaded.sha256,
        )

    def _signed(self, grant: Grant) -> UploadGrant:
        url, headers = self._store.presign(grant.key, grant.content)
        return UploadGrant(key=grant.key, sequence=grant.sequence, url=url, headers=headers, kind=grant.kind)

    async def checkpoint(self, token: str, request: CheckpointRequest) -> CheckpointResponse:
        """Commit objects and the state that covers them. The same request again changes nothing.

        The bucket is asked before the transaction begins: a run's row is never held while a bucket answers. An object that
        the bucket holds cannot change, as its key is written once.
        """
        proof = await self._prove(token, [uploaded.key for uploaded in request.objects])
        reason = f"checkpoint {request.checkpoint} of stream {request.stream}"
        async with self._held(token, Action.attempt_checkpoint, reason) as (connection, attempt):
            await checkpoint.commit(connection, attempt, request, proof)
        return CheckpointResponse(checkpoint=request.checkpoint)

    async def _prove(self, token: str, keys: list[str]) -> ObjectProof:
        """Compare the attempt's objects in the bucket with their grants."""
        if not keys:
            return ObjectProof()
        async with self._pool.connection() as db:
            granted = await bronze_objects.open_grants(db, digest(token), keys)
        return ObjectProof(frozenset(granted), await self._store.differences(granted))

    async def lease_credential(self, token: str, request: CredentialLeaseRequest) -> CredentialLeaseResponse:
        """Grant the use of a credential that is replaced by it, or return what another pod got."""
        reason = f"credential {request.name}"
        async with self._held(token, Action.credential_lease, reason) as (connection, attempt):
            return await credential_leases.lease(connection, self._vault, _lease_holder(attempt), request)

    async def release_credential(self, token: str, request: CredentialReleaseRequest) -> CredentialReleaseResponse:
        """End a lease whose holder has nothing to store."""
        async with self._pool.connection() as db, db.transaction():
            attempt = await _attempt_of(db, token)
            await credential_leases.release(db, _lease_holder(attempt), request)
            await audit_store.record(db, Action.credential_release, attempt.audited)
        return CredentialReleaseResponse()

    async def keep_credential(self, token: str, request: CredentialRequest) -> CredentialResponse:
        """Keep a credential that the source has replaced. The same request again changes nothing."""
        if request.lease is not None:
            return CredentialResponse(version=await self._store_leased(token, request))
        async with self._held(token, Action.credential_write, f"credential {request.name}") as (connection, attempt):
            version = await self._vault.keep(connection, _lease_holder(attempt).owner, request)
        return CredentialResponse(version=version)

    async def _store_leased(self, token: str, request: CredentialRequest) -> int:
        """Store what was got under a lease. An attempt that has just ended may do it too: nobody else has the value."""
        async with self._pool.connection() as db, db.transaction():
            attempt = await _attempt_of(db, token)
            if attempt.finished_at and datetime.now(UTC) - attempt.finished_at > LATE_CREDENTIAL:
                raise Fenced
            version = await credential_leases.store(db, self._vault, _lease_holder(attempt), request)
            await audit_store.record(db, Action.credential_write, attempt.audited, reason=f"credential {request.name}")
        return version

    async def lease_requests(self, token: str, request: RateLimitRequest) -> RateLimitResponse:
        """Give the attempt requests to a host, from the budget that it shares with other connections."""
        async with self._pool.connection() as db, db.transaction():
            attempt = await _attempt_of(db, token)
            launch = await attempt_store.attempt_to_launch(db, attempt.run_id, attempt.attempt)
            if launch is None or attempt.finished_at:
                raise Fenced
            place = (normal_host(request.host), request.port)
            declared = rate_rules(launch.manifest, launch.spec.config)
            rules = [rule for rule in declared if (rule.host, rule.port) == place]
            if not rules:
                return RateLimitResponse(requests=request.requests, limited=False)
            lease = await leases.lease_requests(db, rules, attempt.namespace, request.requests)
        return RateLimitResponse(
            requests=lease.granted, wait_seconds=lease.wait_seconds, valid_seconds=lease.valid_seconds
        )

    async def egress(self, token: str) -> EgressResponse:
        """Return where the attempt of a run token may connect to."""
        async with self._pool.connection() as db:
            attempt = await _attempt_of(db, token)
            launch = await attempt_store.attempt_to_launch(db, attempt.run_id, attempt.attempt)
            if launch is None or attempt.finished_at:
                raise Fenced
        host, port = self._store.address()
        return EgressResponse(
            run=attempt.run_id,
            attempt=attempt.attempt,
            destinations=egress_records.allowed_destinations(launch),
            platform=[EgressDestination(host=host, port=port, private=True)],
        )

    async def egress_report(self, token: str, report: EgressReport) -> EgressReportResponse:
        """Keep what the egress gateway reports of an attempt, ended or not: its last bytes come after its end."""
        async with self._pool.connection() as db, db.transaction():
            attempt = await _attempt_of(db, token)
            await egress_records.record_report(db, attempt.run_id, attempt.attempt, report)
        return EgressReportResponse()

    async def heartbeat(self, token: str, request: HeartbeatRequest) -> HeartbeatResponse:
        """Take a sign of life and the attempt's metrics, and say whether to stop."""
        async with self._pool.connection() as db:
            attempt = await _attempt_of(db, token)
            cancel = await attempt_store.heartbeat(db, attempt.run_id, attempt.attempt, request.metrics)
        if cancel is None:
            raise Fenced
        return HeartbeatResponse(cancel=cancel)

    async def finish(self, token: str, request: FinishRequest) -> FinishResponse:
        """Record the attempt's end. Success is believed only when all counts agree and every stream is done."""
        async with self._pool.connection() as db, db.transaction():
            attempt = await _attempt_of(db, token)
            run = await transitions.current(db, attempt.run_id, attempt.attempt)
            if run is None:
                # The same call may have ended it while this one waited: a pod repeats one whose answer does not come.
                return _ended_already(await attempt_store.attempt_by_token(db, digest(token)), request)
            phase = await self._end(db, run, attempt, request)
            await audit_store.record(db, Action.attempt_finish, attempt.audited, reason=request.outcome)
            return FinishResponse(phase=phase)

    async def _end(self, db: DatabaseConnection, run: Run, attempt: HeldAttempt, request: FinishRequest) -> str:
        await stream_outcomes.record(db, run.id, attempt.attempt, request.streams)
        if request.outcome == "succeeded" and (attempt.refused or _failed_streams(request)):
            return await transitions.fail(db, run, _refused(attempt, request), AttemptFailure("SourceContractError"))
        lost = await conservation.lost(db, attempt, request)
        if lost:
            return await transitions.fail(db, run, _lost(lost, request), AttemptFailure("DefectError", final=True))
        if request.outcome == "succeeded":
            await self._check_done(db, attempt)
            return await self._succeed(db, run, attempt, request)
        if request.outcome == "cancelled":
            return await transitions.cancel(db, run)
        progressed = await bronze_objects.has_progressed(db, run.id, attempt.attempt)
        if request.outcome == "interrupted":
            message = "the pod was told to stop before the run had ended"
            ending = AttemptOutcome("interrupted", "AttemptLost", "TransientError", message, metrics=request.metrics)
            return await transitions.fail(db, run, ending, AttemptFailure("TransientError", progressed, disrupted=True))
        if request.error is None:
            message = "a failed attempt must say its error"
            raise Invalid(message)
        error = request.error
        ending = AttemptOutcome(
            "failed",
            error.error_class,
            error.error_class,
            error.message,
            error.operator_message,
            metrics=request.metrics,
        )
        failure = AttemptFailure(error.error_class, progressed, retry_after=error.retry_after)
        return await transitions.fail(db, run, ending, failure)

    async def _succeed(self, db: DatabaseConnection, run: Run, attempt: HeldAttempt, request: FinishRequest) -> str:
        gone = await stream_outcomes.unfinished(db, run.id)
        if gone:
            return await transitions.fail(db, run, _broken(_gone(gone), request), AttemptFailure("SourceContractError"))
        counts = await read_anomalies.counts_of(db, run.id)
        too_many = read_anomalies.over_threshold(read_anomalies.reject_rules(attempt.spec), counts)
        if too_many:
            return await transitions.fail(db, run, _broken(too_many, request), AttemptFailure("SourceContractError"))
        if request.pii_suggested:
            await schema_store.add_suggestions(db, attempt.connection_uid, request.pii_suggested)
        # What a window holds says nothing about what an ordinary read brings.
        message = "" if attempt.spec.window else await read_anomalies.record_reads(db, attempt, counts)
        ending = AttemptOutcome("succeeded", "RunSucceeded", message=message, exit_code=0, metrics=request.metrics)
        return await transitions.succeed(db, run, ending)

    async def _check_done(self, db: DatabaseConnection, attempt: HeldAttempt) -> None:
        states = await attempt_states.of_attempt(db, attempt)
        selected = attempt.streams or [stream.name for stream in attempt.spec.streams]
        open_ = [name for name in selected if not attempt_states.is_done(states, name, attempt.run_id)]
        if open_:
            message = f"streams without a final checkpoint: {', '.join(open_)}"
            raise Mismatch(message)


async def _attempt_of(db: DatabaseConnection, token: str) -> HeldAttempt:
    """Return the attempt of a run token. Raises Unauthenticated without one."""
    attempt = await attempt_store.attempt_by_token(db, digest(token))
    if attempt is None:
        raise Unauthenticated
    identify_pod(attempt.job_name, attempt.pod_uid, attempt.namespace)
    concerns("attempt", attempt.namespace, attempt.name, attempt.audited.id)
    return attempt


def _lease_holder(attempt: HeldAttempt) -> LeaseHolder:
    owner = CredentialOwner(attempt.connection_uid, frozenset(attempt.credentials))
    return LeaseHolder(owner, attempt.namespace, attempt.run_id, attempt.attempt)


def _ended_already(attempt: HeldAttempt | None, request: FinishRequest) -> FinishResponse:
    """Answer a repeated finish; an end that somebody else gave the attempt is not the pod's to confirm."""
    if attempt is None or attempt.phase != request.outcome:
        raise Fenced
    return FinishResponse(phase=attempt.run_phase)


def _refused(attempt: HeldAttempt, request: FinishRequest) -> AttemptOutcome:
    """A run is no success with a stream that it was not allowed to read, even where the pod's SDK knows nothing of it."""
    told = {stream: f"stream {stream!r} failed" for stream in _failed_streams(request)}
    return _broken("; ".join({**told, **attempt.refused}.values()), request)


def _gone(streams: list[RunStream]) -> str:
    """Say which streams an earlier attempt had not read to their end, and the source does not offer any more."""
    told = "; ".join(
        f"stream {stream.stream!r} was not read to its end in attempt {stream.attempt}{f' ({stream.message})' * bool(stream.message)}"
        for stream in streams
    )
    return (
        f"{told}; the source does not offer it any more. What was read of it is kept; the next run reads what there is"
    )


def _failed_streams(request: FinishRequest) -> list[str]:
    return [stream for stream, ended in request.streams.items() if ended.outcome != "succeeded"]


def _broken(message: str, request: FinishRequest) -> AttemptOutcome:
    return AttemptOutcome(
        "failed", "SourceContractError", "SourceContractError", message, exit_code=0, metrics=request.metrics
    )


def _lost(message: str, request: FinishRequest) -> AttemptOutcome:
    return AttemptOutcome("failed", "DefectError", "DefectError", message, metrics=request.metrics)
