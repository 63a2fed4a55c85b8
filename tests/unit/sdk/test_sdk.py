"""The SDK's surface, and the guard of a run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import penstock_sdk
import pytest
from penstock_sdk import LocalPersistenceError
from penstock_sdk.runtime.guard import no_local_writes
from penstock_sdk.runtime.masking import Mask


def test_the_public_names_are_these() -> None:
    assert penstock_sdk.__all__ == sorted(penstock_sdk.__all__)
    assert {"Connector", "Batch", "Stream", "ConfigError", "TransientError"} < set(penstock_sdk.__all__)


def test_importing_the_contract_imports_neither_pydantic_nor_httpx() -> None:
    code = "import sys, penstock_sdk; sys.exit(bool({'pydantic', 'httpx', 'yaml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_local_write_has_its_own_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with no_local_writes():
        (scratch / "allowed").write_text("scratch")
        with pytest.raises(LocalPersistenceError, match=r"state\.json"):
            (tmp_path / "state.json").write_text("{}")
    (tmp_path / "after").write_text("outside of the run")


def test_secrets_are_masked_longest_first() -> None:
    assert Mask(["hunter2", "hunter2000", "abc"])("hunter2000 hunter2 abc") == "*** *** abc"
