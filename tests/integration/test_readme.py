"""The commands of README.md, as a reader types them, one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from penstock_operator.cli.api_session import DATA_DIR

ROOT = Path(__file__).resolve().parents[2]


def commands_after(sentence: str) -> str:
    """Return the indented block that follows a sentence of README.md."""
    found = re.search(rf"{re.escape(sentence)}\n\n((?:    .*\n|\n)+)", (ROOT / "README.md").read_text())
    assert found, f"README.md has no commands after {sentence!r}"
    return textwrap.dedent(found[1])


def data_of_the_demo() -> str:
    """Return the folder in which `make demo` keeps its data."""
    found = re.search(r'^HERE = Path\("(.+)"\)$', (ROOT / "examples/demo/demo.py").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_the_platform_without_kubernetes(tmp_path: Path) -> None:
    (tmp_path / data_of_the_demo() / "data").mkdir(parents=True)  # `make demo` is the section before
    script = commands_after("By hand:").replace(". .venv/bin/activate\n", "")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["/bin/bash", "-euxc", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert (tmp_path / DATA_DIR).is_dir()
