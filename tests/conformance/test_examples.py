"""What the guides show is a whole project: its own tests pass, and it is conformant."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.conftest import install
from tests.unit.docs.guides import DOCS, blocks

EXAMPLE = DOCS.parent / "examples" / "feed-rest"


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    """A copy of the example."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "feed-rest"))


def test_the_feed_example_is_conformant(feed: Path) -> None:
    environment = install(feed, "penstock_feed_rest:FeedRest", "feed-rest")
    command = "import sys; from penstock_sdk.author import main; sys.exit(main())"
    arguments = [sys.executable, "-c", command, "test", "--report", "report.json"]
    done = subprocess.run(
        arguments, cwd=feed, env=environment, capture_output=True, text=True, check=False, timeout=1800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((feed / "report.json").read_text())
    assert report["conformant"]
    (other,) = [check["name"] for check in report["checks"] if check["outcome"] == "not applicable"]
    assert other == "partitions", "a feed is read in one"


def test_the_feed_examples_own_tests_pass(feed: Path) -> None:
    environment = install(feed, "penstock_feed_rest:FeedRest", "feed-rest")
    command = [sys.executable, "-m", "pytest", "tests", "-q"]
    done = subprocess.run(command, cwd=feed, env=environment, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("number", range(2))
def test_the_guide_shows_the_examples_own_code(number: int) -> None:
    source = (EXAMPLE / "src/penstock_feed_rest/connector.py").read_text()
    assert blocks(DOCS / "authors/feed.md", "python")[number] in source
