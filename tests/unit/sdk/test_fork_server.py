"""Processes of attempts: an end is seen however soon it comes, and however late."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from penstock_sdk.testing.fork_server import ForkServer, base_environment

from tests.patience import PATIENCE


@pytest.fixture
def spawner() -> Iterator[ForkServer]:
    made = ForkServer()
    yield made
    made.close()


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path


def test_an_end_that_comes_before_anybody_looks_is_seen(spawner: ForkServer, room: Path) -> None:
    for _ in range(3):
        child = spawner.spawn({**base_environment(), "PENSTOCK_RUN_ID": "r"}, room)  # no connector is named
        time.sleep(0.3)  # so that number and end are both there to be read
        assert child.wait(PATIENCE) not in (None, 0)
        assert child.ended
    assert (room / "output").read_text()


def test_a_process_that_does_not_end_can_be_killed(spawner: ForkServer, room: Path) -> None:
    environment = {
        **base_environment(),
        "PENSTOCK_RUN_ID": "r",
        "PENSTOCK_ATTEMPT": "1",
        "PENSTOCK_CONNECTOR": "faker-generate",
        "PENSTOCK_API_URL": "http://127.0.0.1:9",  # nobody answers, and a pod is patient
        "PENSTOCK_TOKEN_FILE": str(room / "token"),
    }
    (room / "token").write_text("t")
    child = spawner.spawn(environment, room)
    assert child.wait(1.0) is None
    child.send(signal.SIGKILL)
    assert child.wait(PATIENCE) == -signal.SIGKILL
