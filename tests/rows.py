"""Rows of the registry for tests of pure functions: change the fields that matter with `dataclasses.replace`."""

from __future__ import annotations

from datetime import UTC, datetime

from penstock_operator.connections.connection_store import ConnectionSummary
from penstock_operator.ids import (
    AttemptNumber,
    ConnectionName,
    ConnectionUid,
    DefinitionName,
    DefinitionUid,
    Namespace,
    RunId,
)
from penstock_operator.resources.schedules import UTC_ZONE, CronSchedule
from penstock_operator.runs.attempt_store import LiveAttempt
from penstock_operator.runs.run_spec import RunSpec
from penstock_operator.runs.run_store import RunDetail

NOW = datetime(2026, 5, 1, tzinfo=UTC)
RUN = RunDetail(
    id=RunId("r2"),
    namespace=Namespace("team"),
    name=ConnectionName("orders"),
    definition=DefinitionName("faker-generate-0.1.0"),
    connection_uid=ConnectionUid("c1"),
    definition_uid=DefinitionUid("d1"),
    spec=RunSpec.parse({"connector": {"name": "faker", "method": "generate"}}),
    trigger="schedule",
    scheduled_at=NOW,
    token=None,
    phase="pending",
    attempt=AttemptNumber(1),
    streak=0,
    disruptions=0,
    memory=None,
    next_attempt_at=NOW,
    cancel_requested=False,
    cancel_requested_at=None,
    created_at=NOW,
    started_at=None,
    finished_at=None,
    attempt_started_at=None,
    records=0,
    deletes=0,
    rejected=0,
    bytes=0,
    objects=0,
    reason=None,
    error_class=None,
    message="",
    waits="",
    waits_reason=None,
    committed_records=0,
    failed_streams=[],
)

LIVE = LiveAttempt(
    run_id=RunId("r"),
    attempt=AttemptNumber(1),
    job_name="penstock-r-1",
    job_uid="job",
    attempt_phase="running",
    attempt_started_at=None,
    heartbeat_at=None,
    phase="running",
    current_attempt=AttemptNumber(1),
    waits="",
    waits_reason=None,
    cancel_requested=False,
    namespace=Namespace("team"),
    name=ConnectionName("orders"),
    age_seconds=0.0,
    silent_seconds=None,
    cancelling_seconds=None,
)

CONNECTION = ConnectionSummary(
    uid=ConnectionUid("c1"),
    generation=1,
    definition_uid=DefinitionUid("d1"),
    ready=True,
    suspended=False,
    schedule=CronSchedule("0 * * * *"),
    time_zone=UTC_ZONE,
    jitter_seconds=0,
    next_run_at=None,
    paused_until=None,
    failures=0,
    last_scheduled_at=None,
    last_success_at=None,
    handled_request=None,
    handled_reset=None,
    handled_rewind=None,
    state_answer=None,
    upstream_reason=None,
    released_at=None,
    deleted_at=None,
)
