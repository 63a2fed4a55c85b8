"""What commands print of a platform, read by people and by scripts that stop reading, or never began."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_up import FAKER, PENSTOCK, User
from tests.patience import PATIENCE


@pytest.fixture
def user(folder: Path, tmp_path: Path, backends_environment: dict[str, str]) -> User:
    found = User(folder, tmp_path, backends_environment)
    streams = [{"name": "people", "mode": "incremental"}]
    found.connection("good", connector=FAKER, config={"records": 3000}, streams=streams)
    found.connection("stalled", connector={**FAKER, "version": "^9"}, config={"records": 1}, streams=streams)
    return found


def test_commands_print_for_people_and_for_scripts(user: User) -> None:
    code, results, errors = user.up()
    assert (code, results["good"]["phase"], results["stalled"]["phase"]) == (1, "succeeded", "invalid"), errors
    run_id = str(results["good"]["run_id"])
    for command in (("bronze", "head", "-n", "3000"), ("runs", "logs", run_id), ("connections", "list")):
        stops_reading(user, *command)
    never_reads(user, "runs", "list")
    has_a_full_disk(user, "runs", "list", "-o", "json")

    rows = {row["name"]: row for row in json.loads(said(user, "connections", "list", "-o", "json"))}
    assert (rows["good"]["phase"], rows["good"]["next_run_at"], rows["good"]["last_run"]) == ("succeeded", None, run_id)
    assert rows["stalled"]["phase"] == "stalled"
    assert "no version matches '^9'; there are: " in rows["stalled"]["reason"]
    (stalled,) = csv.DictReader(said(user, "connections", "show", "team/stalled", "-o", "csv").splitlines())
    assert (stalled["phase"], stalled["freshness"], stalled["reason"]) == (
        "stalled",
        "never",
        rows["stalled"]["reason"],
    )
    assert (
        "did you mean team/good?" in user.call("connections", "show", "team/god", "--data-dir", str(user.data)).stderr
    )
    (stream,) = csv.DictReader(said(user, "streams", "list", "team/good", "-o", "csv").splitlines())
    assert (stream["stream"], stream["mode"], stream["records"]) == ("people", "incremental", "3000")
    assert "faker-generate-0.1.0" in said(user, "definitions", "list")


def said(user: User, *arguments: str) -> str:
    done = user.call(*arguments, "--data-dir", str(user.data))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def stops_reading(user: User, *arguments: str) -> None:
    """Read nothing of what a command prints, as `| true` does: it says nothing about that."""
    command = [*PENSTOCK, *arguments, "--data-dir", str(user.data)]
    with subprocess.Popen(command, env=user.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE) in (0, 1)


def never_reads(user: User, *arguments: str) -> None:
    """Start a command without stdout, as `>&-` does."""
    code = "import os, sys; os.close(1); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", code, *PENSTOCK, *arguments, "--data-dir", str(user.data)]
    done = subprocess.run(command, env=user.environment, check=False, stderr=subprocess.PIPE, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, b"")


def has_a_full_disk(user: User, *arguments: str) -> None:
    command = [*PENSTOCK, *arguments, "--data-dir", str(user.data)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, env=user.environment, check=False, stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE
        )
    assert done.returncode == 2
    assert done.stderr == f"error: {os.strerror(28)}\n".encode()
