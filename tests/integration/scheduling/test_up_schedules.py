"""Schedules as somebody at a shell meets them: `penstock up`, `runs backfill`, `runs cancel`."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.test_up import FAKER, PENSTOCK, User
from tests.patience import PATIENCE

SMALL = {"connector": FAKER, "config": {"records": 5}}


@pytest.fixture
def user(folder: Path, tmp_path: Path, backends_environment: dict[str, str]) -> User:
    return User(folder, tmp_path, backends_environment)


def runs(user: User, *arguments: str) -> subprocess.CompletedProcess[str]:
    return user.call("runs", *arguments, "--data-dir", str(user.data))


def shown(user: User, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(runs(user, "show", run_id, "-o", "json").stdout)
    return found


def test_once_runs_a_connection_after_those_that_it_follows(user: User) -> None:
    user.connection("a-report", **SMALL, after=[{"name": "orders"}])
    user.connection("orders", **SMALL)
    user.connection("x", **SMALL, after=[{"name": "y"}])
    user.connection("y", **SMALL, after=[{"name": "x"}])
    code, results, errors = user.up()
    assert code == 0, errors
    report, orders = (shown(user, str(results[name]["run_id"])) for name in ("a-report", "orders"))
    assert report["started_at"] >= orders["finished_at"]
    assert report["phase"] == orders["phase"] == "succeeded"
    assert len(results) == 4, "whoever follows in a circle is run all the same, as --once asks"


def test_a_platform_that_is_up_runs_what_follows(user: User) -> None:
    user.connection("orders", **SMALL)
    user.connection("report", **SMALL, after=[{"name": "orders"}])
    command = [*PENSTOCK, "up", str(user.folder), "--data-dir", str(user.data)]
    with subprocess.Popen(command, env=user.environment, stderr=subprocess.PIPE, text=True) as up:
        try:
            assert up.stderr is not None
            assert "penstock is up" in up.stderr.readline()
            wait_for(user, "SELECT 1 FROM penstock.tenant_connections WHERE name = 'report' AND ready")
            assert runs(user, "start", "team/orders").returncode == 0
            wait_for(user, "SELECT 1 FROM penstock.connector_runs WHERE trigger = 'upstream' AND phase = 'succeeded'")
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(timeout=PATIENCE)


def wait_for(user: User, query: str) -> None:
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect(user.environment["PENSTOCK_DATABASE_URL"], autocommit=True) as connection:
        while connection.execute(query).fetchone() is None:
            assert time.monotonic() < deadline, query
            time.sleep(0.2)


def test_a_window_is_filled_once_and_what_waits_can_be_cancelled(user: User) -> None:
    user.connection("fake", **SMALL, schedule="0 6 * * *", timeZone="Europe/Paris")
    user.up()
    window = ("backfill", "team/fake", "--from", "2026-03-28T00:00:00+01:00", "--to", "2026-03-30T00:00:00+02:00")
    lines = [line.split() for line in runs(user, *window).stdout.splitlines()]
    assert [at for _, at in lines] == ["2026-03-28T05:00:00Z", "2026-03-29T04:00:00Z"]
    again = runs(user, *window)
    assert (again.stdout, again.stderr) == ("", "every tick of the window has made a run\n")
    assert runs(user, "cancel", *(run_id for run_id, _ in lines)).stdout.splitlines() == ["cancelled", "cancelled"]
    wrong = runs(user, "backfill", "team/fake", "--from", "2026-03-28")
    assert wrong.returncode == 2
    assert "from:" in wrong.stderr


def test_a_window_is_read_again_and_the_next_run_goes_on_where_it_stood(user: User) -> None:
    """Events are a second apart from 2023-11-14T22:13:20Z on: 10 to 19 are the window."""
    spec = {"connector": FAKER, "streams": [{"name": "events", "mode": "incremental"}]}
    user.connection("fake", **spec, config={"records": 30})
    _, results, _ = user.up()
    window = ("backfill", "team/fake", "--from", "2023-11-14T22:13:30Z", "--to", "2023-11-14T22:13:40Z", "--reread")
    made = runs(user, *window)
    assert made.returncode == 0, made.stderr
    refused = runs(user, *window)
    assert (refused.returncode, "reads this window again already" in refused.stderr) == (2, True)
    command = [*PENSTOCK, "up", str(user.folder), "--data-dir", str(user.data)]
    with subprocess.Popen(command, env=user.environment, stderr=subprocess.PIPE, text=True) as up:
        try:
            wait_for(
                user,
                f"SELECT 1 FROM penstock.connector_runs WHERE id = '{made.stdout.strip()}' AND phase = 'succeeded'",
            )
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(timeout=PATIENCE)
    with psycopg.connect(user.environment["PENSTOCK_DATABASE_URL"]) as connection:
        keys = connection.execute(
            "SELECT key FROM penstock.bronze_objects WHERE run_id = %s AND committed_at IS NOT NULL",
            [made.stdout.strip()],
        ).fetchall()
    again = user.records({"objects": [key for (key,) in keys]})
    assert [item["data"]["n"] for item in again] == list(range(10, 20))
    span = {"start": "2023-11-14T22:13:30Z", "end": "2023-11-14T22:13:40Z"}
    assert {json.dumps(item["window"]) for item in again} == {json.dumps(span)}
    user.connection("fake", **spec, config={"records": 33})
    _, results, _ = user.up()
    assert [record["data"]["n"] for record in user.records(results["fake"])] == [30, 31, 32]
