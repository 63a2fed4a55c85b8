"""What the registry holds, in the oracle's shape; and the invariants, looked for in the registry alone."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

from penstock_operator.registry.database import Pool, one
from penstock_operator.runs.commit_store import commit_manifest

from tests.model.oracle import ACTIVE, MODES, Oracle
from tests.model.reality import names_of

Rows = dict[str, list[Any]]
SQL = """
    SELECT json_build_object(
        'runs', (SELECT json_agg(t) FROM penstock.connector_runs t),
        'attempts', (SELECT json_agg(t ORDER BY run_id, attempt) FROM penstock.run_attempts t),
        'connections', (SELECT json_agg(t) FROM penstock.tenant_connections t),
        'states', (SELECT json_agg(t) FROM penstock.connector_run_state t),
        'windows', (SELECT json_agg(t) FROM penstock.window_states t),
        'checkpoints', (SELECT json_agg(t) FROM penstock.stream_checkpoints t),
        'streams', (SELECT json_agg(t) FROM penstock.run_streams t),
        'changes', (SELECT json_agg(t) FROM penstock.state_changes t),
        'objects', (SELECT json_agg(t ORDER BY run_id, attempt, stream, sequence) FROM penstock.bronze_objects t),
        'commits', (SELECT json_agg(payload ->> 'run') FROM penstock.outbox WHERE kind = 'commit')) AS found
"""


async def read(pool: Pool) -> Rows:
    """Return the tables, in one round trip."""
    async with pool.connection() as db:
        row = await one(db, SQL)
    assert row is not None
    return {name: found or [] for name, found in row["found"].items()}


def shape_of_registry(rows: Rows) -> dict[str, Any]:
    """Return what the rows say, without what the oracle does not know: ids, moments, messages."""
    names = names_of(rows["runs"])
    attempts = defaultdict[str, list[Any]](list)
    objects = defaultdict[tuple[str, int], dict[tuple[str, int], tuple[int, ...]]](dict)
    for row in rows["objects"]:
        objects[row["run_id"], row["attempt"]][row["stream"], row["sequence"]] = (
            *(row["generation"], *_span(row)),
            row["checkpoint"],
        )
    for row in rows["attempts"]:
        ended = row["phase"] if row["finished_at"] else None
        held = objects.pop((row["run_id"], row["attempt"]), {})
        attempts[row["run_id"]].append(
            (row["job_uid"] is not None, row["pod_uid"], ended, tuple(sorted(row["streams"])), held)
        )
    assert not objects, "an object of no attempt"
    states = {
        (row["connection_uid"], row["stream"]): (
            row["cursor"] and row["cursor"]["next"],
            row["checkpoint"],
            row["generation"],
            names.get(row["run_id"]),
            row["attempt"],
            row["done"],
        )
        for row in rows["states"]
    }
    windows = {
        (names[row["run_id"]], row["stream"]): (
            row["cursor"] and row["cursor"]["next"],
            row["checkpoint"],
            row["attempt"],
            row["done"],
        )
        for row in rows["windows"]
    }
    return {
        "runs": {
            names[row["id"]]: (row["phase"], row["cancel_requested"], attempts[row["id"]]) for row in rows["runs"]
        },
        "connections": {
            row["uid"]: (
                row["deleted_at"] is not None,
                row["handled_request"],
                None if row["deleted_at"] else datetime.fromisoformat(row["next_run_at"]),
            )
            for row in rows["connections"]
        },
        "states": states,
        "windows": windows,
        "streams": {(names[row["run_id"]], row["stream"]): (row["attempt"], row["outcome"]) for row in rows["streams"]},
    }


def shape_of_oracle(oracle: Oracle) -> dict[str, Any]:
    """Return the same of the oracle."""
    runs = {}
    for name, run in oracle.runs.items():
        attempts = []
        for item in run.attempts:
            held = {key: (o.generation, o.start, o.stop, o.checkpoint) for key, o in item.objects.items()}
            attempts.append((item.job is not None, item.pod, item.ended, tuple(sorted(item.streams)), held))
        runs[name] = (run.phase, run.cancel, attempts)
    return {
        "runs": runs,
        "connections": {
            uid: (connection.deleted, connection.handled, None if connection.deleted else connection.next_run_at)
            for uid, connection in oracle.connections.items()
        },
        "states": {
            (uid, stream): (s.cursor, s.checkpoint, s.generation, s.run, s.attempt, s.done)
            for uid, connection in oracle.connections.items()
            for stream, s in connection.states.items()
        },
        "windows": {
            (name, stream): (s.cursor, s.checkpoint, s.attempt, s.done)
            for name, run in oracle.runs.items()
            for stream, s in run.states.items()
        },
        "streams": {
            (name, stream): outcome for name, run in oracle.runs.items() for stream, outcome in run.outcomes.items()
        },
    }


def check_1_and_2(rows: Rows, before: Rows | None) -> None:
    """One run of a due time or token; attempts are numbered 1, 2, 3 … and only the last may be current."""
    assert len(set(names_of(rows["runs"]).values())) == len(rows["runs"])
    numbers = defaultdict(list)
    for row in rows["attempts"]:
        numbers[row["run_id"]].append(row["attempt"])
    for row in rows["runs"]:
        assert numbers[row["id"]] == list(range(1, row["attempt"] + 1))
    earlier = {row["id"]: row["attempt"] for row in before["runs"]} if before else {}
    assert all(row["attempt"] >= earlier.get(row["id"], 0) for row in rows["runs"])


def check_3(rows: Rows, before: Rows | None) -> None:
    """What was committed in this step was committed by an attempt that was current when the step began, or began in it."""
    if before is None:
        return
    known = {row["key"] for row in before["objects"] if row["committed_at"]}
    attempt_then = {row["id"]: (row["attempt"], row["phase"]) for row in before["runs"]}
    for row in rows["objects"]:
        if row["committed_at"] and row["key"] not in known:
            assert attempt_then[row["run_id"]] == (row["attempt"], "running")


def check_4(rows: Rows) -> None:
    """The objects of a checkpoint hold exactly the records between its cursor and the one before it."""
    cursors: dict[tuple[str, str, int], tuple[Any, str | None]] = {}
    for row in rows["checkpoints"]:
        cursors[row["connection_uid"], row["stream"], row["checkpoint"]] = (row["cursor"], row["run_id"])
    for row in rows["changes"]:
        cursors[row["connection_uid"], row["stream"], row["after"]["checkpoint"]] = (row["after"]["cursor"], None)
    held, again = defaultdict(list), _runs_of_windows(rows)
    for row in rows["objects"]:
        if row["committed_at"] and row["run_id"] not in again:
            held[row["connection_uid"], row["stream"], row["checkpoint"]].append(row)
    assert held.keys() <= {(row["connection_uid"], row["stream"], row["checkpoint"]) for row in rows["checkpoints"]}
    for row in rows["checkpoints"]:
        uid, stream, number = row["connection_uid"], row["stream"], row["checkpoint"]
        cursor, run = cursors.get((uid, stream, number - 1), (None, None))
        goes_on = cursor and (MODES[stream] == "incremental" or run == row["run_id"])
        objects = held[uid, stream, number]
        assert {stored["run_id"] for stored in objects} <= {row["run_id"]}, (
            "objects and state of one checkpoint are of one run"
        )
        _covers(row, objects, cursor["next"] if goes_on else 0)


def check_4_of_windows(rows: Rows) -> None:
    """What a run has committed of a window is what its own state covers, from the start and without a gap or a double."""
    held, again = defaultdict(list), _runs_of_windows(rows)
    for row in rows["objects"]:
        if row["committed_at"] and row["run_id"] in again:
            held[row["run_id"], row["stream"]].append(row)
    stands = {(row["run_id"], row["stream"]): row for row in rows["windows"]}
    assert held.keys() <= stands.keys()
    assert not again & {row["run_id"] for row in rows["states"] + rows["checkpoints"]}, "a stream's state is a window's"
    for key, state in stands.items():
        _covers(state, sorted(held[key], key=lambda row: (row["checkpoint"], row["sequence"])), 0)


def _runs_of_windows(rows: Rows) -> set[str]:
    return {row["id"] for row in rows["runs"] if "window" in row["spec"]}


def _span(row: dict[str, Any]) -> tuple[int, int]:
    """Return which records an object holds, which is kept where its digest would be."""
    return int(row["sha256"][:32], 16), int(row["sha256"][32:], 16)


def _covers(state: dict[str, Any], objects: list[dict[str, Any]], position: int) -> None:
    """The objects follow each other from the position, and end where the state stands."""
    for stored in objects:
        start, stop = _span(stored)
        assert start == position, "a gap or a double"
        position = stop
    assert position == (state["cursor"]["next"] if state["cursor"] else 0), "the state covers what its objects hold"


def check_5(rows: Rows, before: Rows | None) -> None:
    """What is committed stays as it is."""
    now = {row["key"]: row for row in rows["objects"]}
    for row in before["objects"] if before else []:
        if row["committed_at"]:
            assert now[row["key"]] == row


async def check_6(pool: Pool, rows: Rows, succeeded: set[str]) -> None:
    """A run that has ended is told once; one that succeeded has counts that agree everywhere."""
    told = sorted(rows["commits"])
    assert told == sorted(row["id"] for row in rows["runs"] if row["phase"] not in ACTIVE)
    for row in rows["runs"]:
        if row["phase"] == "succeeded" and row["id"] not in succeeded:
            committed = [
                stored for stored in rows["objects"] if stored["run_id"] == row["id"] and stored["committed_at"]
            ]
            async with pool.connection() as db:
                commit = await commit_manifest(db, row["id"])
            assert commit is not None
            listed = sum(written.records for written in commit.objects)
            assert row["records"] == sum(stored["records"] for stored in committed) == commit.records == listed
            ends = rows["checkpoints"] + rows["windows"]
            done = {end["stream"] for end in ends if end["run_id"] == row["id"] and end["done"]}
            assert done == set(MODES)
            succeeded.add(row["id"])
