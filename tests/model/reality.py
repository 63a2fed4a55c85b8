"""The same steps on the real thing: the registry's functions, the run protocol, the supervisor and the API.

Real are Postgres and everything above it. Two things are played: Jobs, which a launcher that remembers them stands in
for, and the bucket, of which only the contents of objects are kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from penstock_operator import definitions
from penstock_operator.api.app import create_app
from penstock_operator.api.authentication import EmbeddedAuthenticator
from penstock_operator.api.services import Services
from penstock_operator.bronze.store import BronzeStore, ObjectContent
from penstock_operator.connections import connection_records, connection_store
from penstock_operator.connections.connection_records import ConnectionRecord, Timing
from penstock_operator.controller.orchestrator import Components, Orchestrator
from penstock_operator.controller.retirement import LiveResources, retire_all_but
from penstock_operator.errors import Refused
from penstock_operator.ids import ConnectionUid, DefinitionUid
from penstock_operator.launchers import AttemptLaunch, AttemptObservation, LaunchedAttempt
from penstock_operator.launchers.logs import FileLogs
from penstock_operator.logs.reader import RunLogs
from penstock_operator.registry.database import Pool, many
from penstock_operator.resources.models import ConnectionSpec, DefinitionSpec
from penstock_operator.resources.schedules import UTC_ZONE, CronSchedule
from penstock_operator.runs import attempt_store, transitions
from penstock_operator.runs.attempt_store import AttemptOutcome
from penstock_operator.runs.protocol import PodIdentity, RunProtocol
from penstock_operator.scheduling.backfill import BackfillWindow
from penstock_operator.scheduling.due import handle_request, schedule_due
from penstock_operator.scheduling.reread import reread
from penstock_operator.settings import S3Settings, Timings
from penstock_operator.state.admin import Author, Reset, RewindToCheckpoint, change_state
from penstock_sdk import protocol as wire

from tests.fakes.launcher import FakeLauncher
from tests.fakes.resources import FakeResources
from tests.integration.world import EVENTS, IDENTITY, MANIFEST, STREAM
from tests.model.oracle import MODES, Answer, Caller, Wanted
from tests.run_api.pods import START_KEY

SPEC = {
    "connector": {"name": "faker", "method": "generate"},
    "streams": [{"name": name, "mode": mode} for name, mode in MODES.items()],
}
NOWHERE = S3Settings("http://127.0.0.1:9", "bronze", "", access_key="key", secret_key="secret")
NO_LOGS = FileLogs(Path("/nonexistent"))
FAR = timedelta(days=10)
WINDOW = BackfillWindow(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC))
OFFERED = [item.model_copy(update={"windows": True}) for item in (STREAM, EVENTS)]
ENDED = {
    "failed": AttemptObservation("failed", "TransientError", "it failed", "TransientError", 20),
    "disrupted": AttemptObservation("gone", "AttemptLost", "its node is gone", disrupted=True),
    "succeeded": AttemptObservation("succeeded"),
}


class Crash(BaseException):
    """The operator is killed here."""


class CrashingLauncher(FakeLauncher):
    """The launcher of the model: it remembers Jobs, and crashes the operator before or after making one."""

    def __init__(self) -> None:
        super().__init__(self._observed)
        self.made: dict[str, str] = {}
        self.crash = ""

    async def launch(self, launch: AttemptLaunch) -> str:
        if self.crash == "before":
            raise Crash
        self.made.setdefault(launch.job_name, "active")
        if self.crash:
            raise Crash
        return launch.job_name

    def _observed(self, attempt: LaunchedAttempt) -> AttemptObservation:
        return ENDED.get(self.made.get(attempt.job_name, "disrupted"), AttemptObservation("active"))


class PlayedBucket(BronzeStore):
    """Signs grants as the real one does, and knows the contents of its objects."""

    def __init__(self) -> None:
        super().__init__(NOWHERE)
        self.contents: dict[str, ObjectContent] = {}

    async def differences(self, expected: Mapping[str, ObjectContent]) -> dict[str, str]:
        return {key: "it differs" for key, content in expected.items() if self.contents.get(key) != content}


def content_of(start: int, stop: int) -> ObjectContent:
    """Return the content of an object with these records: they are kept where its checksum would be."""
    return ObjectContent(1, f"{start:032x}{stop:032x}")


class Reality:
    """The steps of the oracle, carried out."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.jobs = CrashingLauncher()
        self.uids: dict[str, str] = {}
        """What there is, by name; nothing is reconciled here."""
        self.ids: dict[str, str] = {}
        self.tokens: dict[tuple[str, int], list[str]] = {}
        self._late = timedelta(0)
        store = self.bucket = PlayedBucket()
        parts = Components(pool, FakeResources(), self.jobs, store, Timings(), NO_LOGS, clock=self._clock)
        self.orchestrator = Orchestrator(parts)
        self.protocol = RunProtocol(pool, store)
        authority = EmbeddedAuthenticator(b"secret")
        app = create_app(Services(self.protocol, pool, authority, RunLogs(pool, NO_LOGS, store)))
        headers = {"Authorization": f"Bearer {authority.mint_person()}"}
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://model", headers=headers)

    def _clock(self) -> datetime:
        return datetime.now(UTC) + self._late

    async def begin(self) -> None:
        """Empty the registry but for the definition."""
        self.jobs.made.clear()
        self.bucket.contents.clear()
        self.uids.clear()
        self.ids.clear()
        self.tokens.clear()
        async with self.pool.connection() as db:
            await db.execute(
                "DELETE FROM penstock.outbox; DELETE FROM penstock.bronze_objects; DELETE FROM penstock.compat_alerts;"
                "DELETE FROM penstock.connector_run_state; DELETE FROM penstock.stream_checkpoints;"
                "DELETE FROM penstock.state_changes; DELETE FROM penstock.stream_registry; DELETE FROM penstock.stream_reads;"
                "DELETE FROM penstock.connector_runs; DELETE FROM penstock.tenant_connections"  # window_states go with runs
            )
            spec = {"image": "i@sha256:0", "stage": "certified", "manifest": MANIFEST}
            await definitions.upsert_definition(
                db, "d1", "faker-generate-0.1.0", 1, DefinitionSpec.model_validate(spec)
            )

    async def name_runs(self) -> None:
        """Learn the ids of runs, which the model calls by what made them."""
        async with self.pool.connection() as db:
            sql = "SELECT id, connection_uid, token, spec, to_json(scheduled_at) AS scheduled_at FROM penstock.connector_runs"
            self.ids |= {name: run for run, name in names_of(await many(db, sql)).items()}

    # What the operator does.

    async def schedule(self, now: datetime, schedulers: int) -> Answer:
        await asyncio.gather(*(schedule_due(self.pool, now) for _ in range(schedulers)))
        await self.name_runs()

    async def request(self, uid: str, token: str) -> Answer:
        async with self.pool.connection() as db:
            row = await connection_store.connection_by_uid(db, uid)
            assert row is not None
            await handle_request(db, row.uid, token)
        await self.name_runs()

    async def launch(self, crash: str) -> Answer:
        self._late, self.jobs.crash = FAR, crash
        taken = await self.orchestrator.supervisor.launch_pending()
        await self.orchestrator.supervisor.settled()
        self.jobs.crash = ""
        return "crash" if crash and taken else taken

    def _job_name(self, run: str, attempt: int) -> str:
        return f"penstock-{self.ids[run]}-{attempt}"

    async def job_ends(self, run: str, attempt: int, how: str) -> Answer:
        self.jobs.made[self._job_name(run, attempt)] = how

    async def _witness(self) -> None:
        """Have the controller see each attempt's newest heartbeat, as its rounds do: what it has not seen, it does not judge."""
        self._late = timedelta(0)
        async with self.pool.connection() as db:
            for row in await attempt_store.live_attempts(db):
                self.orchestrator.supervisor.is_silent(row)

    async def observe(self, late: int) -> Answer:
        await self._witness()
        self._late = timedelta(seconds=late)
        await self.orchestrator.supervisor.observe_all()
        await self.orchestrator.supervisor.settled()

    async def give_up(self, run: str, attempt: int) -> Answer:
        ending = AttemptOutcome("lost", "AttemptLost")
        async with self.pool.connection() as db:
            return await transitions.fail_current(db, self.ids[run], attempt, ending, disrupted=True)

    async def delete(self, name: str, crash: str) -> Answer:
        self.uids.pop(name, None)
        if not crash:
            await self.orchestrator.forget(("TenantConnection", "team", name))
            return
        async with self.pool.connection() as db:
            await connection_records.retire_connection(db, "team", name)

    async def create(self, name: str, uid: str, next_run_at: datetime) -> Answer:
        if self.uids.setdefault(name, uid) != uid:
            return
        record = ConnectionRecord(uid, "team", name, 1, ConnectionSpec.parse(SPEC), "d1", ready=True)
        async with self.pool.connection() as db, db.transaction():
            await connection_records.upsert_connection(db, record)
            await connection_records.set_timing(db, uid, Timing(CronSchedule("0 * * * *"), UTC_ZONE, 0, next_run_at))

    async def sweep(self) -> Answer:
        async with self.pool.connection() as db:
            moment = await connection_records.moment_of(db)
        live = LiveResources([DefinitionUid("d1")], [ConnectionUid(uid) for uid in self.uids.values()])
        await retire_all_but(self.pool, live, {"ConnectorDefinition": moment, "TenantConnection": moment})

    # What a person does.

    async def cancel(self, run: str) -> Answer:
        answer = await self.http.post(f"/v1/runs/{self.ids[run]}/cancel")
        assert answer.status_code == 200, answer.text
        return answer.json()["phase"]

    async def reread(self, uid: str) -> Answer:
        async with self.pool.connection() as db:
            answer = await _answer(reread(db, uid, WINDOW, datetime.now(UTC)), lambda _: "ok")
        await self.name_runs()
        return answer

    async def reset(self, uid: str, stream: str) -> Answer:
        return await self._change(uid, Reset((stream,)))

    async def rewind(self, uid: str, stream: str, number: int) -> Answer:
        return await self._change(uid, RewindToCheckpoint(stream, number))

    async def _change(self, uid: str, order: Reset | RewindToCheckpoint) -> Answer:
        async with self.pool.connection() as db:
            return await _answer(change_state(db, uid, order, Author("anna")), lambda _: "ok")

    # What a pod does.

    async def start(self, run: str, attempt: int, pod: str, key: str, *, own_job: bool) -> Answer:
        identity = PodIdentity(pod, self._job_name(run, attempt) if own_job else "another")
        request = wire.StartRequest(
            run=self.ids[run], attempt=attempt, connector=IDENTITY, sdk_version="0", key=START_KEY + key
        )

        def remember(answer: wire.StartResponse) -> str:
            known = self.tokens.setdefault((run, attempt), [answer.run_token])
            assert known == [answer.run_token], "a repeated start has the same token"
            return "ok"

        return await _answer(self.protocol.start(identity, request), remember)

    def _token(self, caller: Caller) -> str:
        return self.tokens[caller.run, caller.attempt][caller.token]

    async def streams(self, caller: Caller) -> Answer:
        request = wire.StreamsRequest(streams=OFFERED, abilities=["window"])

        def told(answer: wire.StreamsResponse) -> Answer:
            return {
                verdict.name: (
                    verdict.read,
                    _position(verdict.selected.cursor),
                    verdict.selected.checkpoint,
                    verdict.selected.generation,
                )
                for verdict in answer.verdicts
            }

        return await _answer(self.protocol.streams(self._token(caller), request), told)

    async def uploads(
        self, caller: Caller, stream: str, sequence: int, span: tuple[int, int], *, arrives: bool
    ) -> Answer:
        content = content_of(*span)
        wanted = wire.ObjectToUpload(sequence=sequence, bytes=content.bytes, sha256=content.sha256)
        request = wire.UploadsRequest(stream=stream, objects=[wanted])

        def put(answer: wire.UploadsResponse) -> Answer:
            if arrives:
                self.bucket.contents.setdefault(answer.grants[0].key, content)
            return "ok"

        return await _answer(self.protocol.uploads(self._token(caller), request), put)

    async def checkpoint(self, caller: Caller, wanted: Wanted) -> Answer:
        request = wire.CheckpointRequest(
            stream=wanted.stream,
            checkpoint=wanted.number,
            cursor=None if wanted.cursor is None else {"next": wanted.cursor},
            objects=[await self._object(caller, wanted.stream, *stored) for stored in wanted.objects],
            done=wanted.done,
        )
        return await _answer(self.protocol.checkpoint(self._token(caller), request), lambda _: "ok")

    async def _object(
        self, caller: Caller, stream: str, attempt: int, sequence: int, start: int, stop: int
    ) -> wire.UploadedObject:
        async with self.pool.connection() as db:
            found = await many(
                db,
                "SELECT key FROM penstock.bronze_objects WHERE run_id = %(run)s AND attempt = %(attempt)s"
                " AND stream = %(stream)s AND sequence = %(sequence)s",
                run=self.ids[caller.run],
                attempt=attempt,
                stream=stream,
                sequence=sequence,
            )
        key = found[0]["key"] if found else "never-granted"
        content = content_of(start, stop)
        return wire.UploadedObject(
            key=key, sequence=sequence, records=stop - start, bytes=content.bytes, sha256=content.sha256
        )

    async def heartbeat(self, caller: Caller) -> Answer:
        call = self.protocol.heartbeat(self._token(caller), wire.HeartbeatRequest())
        return await _answer(call, lambda answer: answer.cancel)

    async def finish(
        self, caller: Caller, outcome: wire.Outcome, records: dict[str, int], failed: tuple[str, ...]
    ) -> Answer:
        error = wire.RunError(error_class="TransientError", message="it failed") if outcome == "failed" else None
        why = wire.RunError(error_class="SourceContractError", message="its view fails")
        told = {stream: wire.StreamOutcome(outcome="failed", error=why) for stream in failed}
        request = wire.FinishRequest(outcome=outcome, error=error, records=records, streams=told)
        return await _answer(self.protocol.finish(self._token(caller), request), lambda answer: answer.phase)


def names_of(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return the model's names of runs by their ids, which are in the order in which they were made."""
    found, windows = dict[str, str](), Counter[str]()
    for row in sorted(rows, key=lambda each: str(each["id"])):
        uid = row["connection_uid"]
        if "window" in row["spec"]:
            windows[uid] += 1
            found[row["id"]] = f"{uid}~{windows[uid]}"
        else:
            found[row["id"]] = f"{uid}#{row['token']}" if row["token"] else f"{uid}@{row['scheduled_at']}"
    return found


def _position(cursor: dict[str, int] | None) -> int | None:
    return None if cursor is None else cursor["next"]


async def _answer(call: Any, told: Any) -> Answer:
    try:
        return told(await call)
    except Refused as refused:
        return type(refused).__name__
