"""`penstock state`, as a user calls it between two syncs."""

from __future__ import annotations

import getpass
import json
import subprocess
from pathlib import Path

import pytest

from tests.integration.test_up import FAKER, PENSTOCK, User, numbers
from tests.patience import PATIENCE


@pytest.fixture
def user(folder: Path, tmp_path: Path, backends_environment: dict[str, str]) -> User:
    return User(folder, tmp_path, backends_environment)


def state(user: User, *arguments: str, code: int = 0, given: str | None = None) -> str:
    command = [*PENSTOCK, "state", *arguments, "--data-dir", str(user.data)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=user.environment, timeout=PATIENCE, input=given
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_a_state_is_shown_reset_rewound_exported_and_imported(user: User) -> None:
    streams = [{"name": "people", "mode": "incremental"}, {"name": "events", "mode": "incremental"}]
    user.connection("fake", connector=FAKER, config={"records": 30}, streams=streams)
    _, first, _ = user.up()
    exported = state(user, "export", "team/fake")
    assert {stream["name"]: stream["generation"] for stream in json.loads(exported)["streams"]} == {
        "events": 1,
        "people": 1,
    }
    assert "generation 2" in state(user, "reset", "team/fake", "--stream", "people", "--reason", "corrected at source")
    _, second, _ = user.up()
    assert numbers(user.records(second["fake"])) == list(range(30)), "people anew, and nothing of events"
    assert all("stream=people/generation=000002" in key for key in second["fake"]["objects"])
    listed = user.call("bronze", "ls", "team/fake", "--data-dir", str(user.data)).stdout
    assert "stream=people/generation=000002" in listed
    assert "stream=people/generation=000001" not in listed
    assert "stream=events/generation=000001" in listed
    state(user, "rewind", "team/fake", "--stream", "events", "--cursor", "null")
    _, third, _ = user.up()
    assert numbers(user.records(third["fake"])) == list(range(30))
    state(user, "rewind", "team/fake", "--to-run", str(first["fake"]["run_id"]), "-s", "events")
    assert first["fake"]["run_id"] in state(user, "history", "team/fake", "--stream", "events")
    assert "generation 2" in state(user, "import", "team/fake", "-", given=exported)
    audited = state(user, "changes", "team/fake")
    assert [audited.count(action) for action in (" reset ", " rewind ", " import ")] == [1, 2, 2]
    assert getpass.getuser() in audited
    assert "corrected at source" in audited


def test_a_mistake_is_told_in_words(user: User) -> None:
    user.connection("fake", connector=FAKER, config={"records": 3}, streams=[{"name": "people"}])
    user.up()
    assert "no connection team/fke" in state(user, "show", "team/fke", code=2)
    assert "give the streams with --stream, or --all" in state(user, "reset", "team/fake", code=2)
    assert "no stream poeple; it has: people" in state(user, "reset", "team/fake", "-s", "poeple", code=2)
    wrong = ("rewind", "team/fake", "--cursor", "{", "-s", "people")
    assert "--cursor: not JSON" in state(user, *wrong, code=2)
    assert "people is read in full" in state(user, "rewind", "team/fake", "--cursor", "5", "-s", "people", code=2)
    assert "document.streams" in state(user, "import", "team/fake", "-", code=2, given='{"connector": "x"}')
