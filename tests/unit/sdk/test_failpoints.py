"""Failpoints: off without the variable, and each in its place."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from penstock_operator.failpoints import OPERATOR_FAILPOINTS
from penstock_sdk import failpoints

ROOT = Path(__file__).parents[3]


def test_without_the_variable_nothing_is_looked_up() -> None:
    assert failpoints.reach.__code__.co_names == ()


def test_the_process_is_killed_at_the_place_and_time_that_were_named() -> None:
    code = "from penstock_sdk.failpoints import reach; reach('a'); reach('b'); print('on', flush=True); reach('a')"
    environment = {**os.environ, failpoints.FAILPOINTS_VARIABLE: "a:2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("on\n", -signal.SIGKILL)


def test_every_name_of_the_operator_stands_in_its_code_once() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "operator/src").rglob("*.py"))
    assert sorted(re.findall(r'reach\("([a-z.]+)"\)', source)) == sorted(OPERATOR_FAILPOINTS)
