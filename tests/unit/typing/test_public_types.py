"""The types of the SDK's public names, as an author's type checker sees them."""

from __future__ import annotations

import sys
from pathlib import Path

from mypy import api

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def test_an_authors_file_has_the_types_that_it_asserts() -> None:
    configuration = ["--config-file", str(ROOT / "pyproject.toml"), "--strict", "--python-executable", sys.executable]
    output, errors, status = api.run([*configuration, str(HERE / "author.py")])
    assert (status, errors) == (0, ""), output
