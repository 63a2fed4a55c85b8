"""The SDK's surface, and the guard of a run."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from penstock_sdk import LocalPersistenceError
from penstock_sdk._runtime.write_guard import no_local_writes
from penstock_sdk.errors import AttemptFenced

from tests.patience import PATIENCE


def test_importing_the_contract_imports_neither_pydantic_nor_httpx() -> None:
    code = "import sys, penstock_sdk; sys.exit(bool({'pydantic', 'httpx', 'yaml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_local_write_has_its_own_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def connect() -> None:
        with no_local_writes():
            (scratch / "allowed").write_text("scratch")
            (tmp_path / "state.json").write_text("{}")

    with pytest.raises(LocalPersistenceError, match=r"state\.json"):
        connect()
    assert not (tmp_path / "state.json").exists()
    (tmp_path / "after").write_text("outside of the run")


def write_and_hide(later: BaseException | None) -> None:
    with no_local_writes() as guard:
        with contextlib.suppress(Exception):
            Path("/state.json").write_text("{}")
        with pytest.raises(LocalPersistenceError):
            guard.check()
        if later:
            raise later


@pytest.mark.parametrize("later", [None, ValueError("something else"), SystemExit(0)], ids=str)
def test_a_local_write_that_was_caught_is_still_the_reason(later: BaseException | None) -> None:
    with pytest.raises(LocalPersistenceError, match=r"state\.json"):
        write_and_hide(later)


def test_the_platforms_word_that_the_attempt_ended_goes_before_a_violation() -> None:
    with pytest.raises(AttemptFenced):
        write_and_hide(AttemptFenced())


def run_python(
    code: str, tmp_path: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_temporary_file_is_allowed_in_a_process_that_never_asked_where(tmp_path: Path) -> None:
    code = (
        "import tempfile\nfrom penstock_sdk._runtime.write_guard import no_local_writes\n"
        "with no_local_writes():\n    tempfile.TemporaryFile().write(b'x'); tempfile.NamedTemporaryFile().write(b'x')"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_lazy_import_that_would_cache_bytecode_is_not_a_violation(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "lazy_module.py").write_text("x = 1")
    (tmp_path / "scratch").mkdir()
    code = (
        "import sys; sys.path.insert(0, 'package')\nfrom penstock_sdk._runtime.write_guard import no_local_writes\n"
        "with no_local_writes():\n    import lazy_module"
    )
    done = run_python(code, tmp_path, {"TMPDIR": str(tmp_path / "scratch")})
    assert done.returncode == 0, done.stderr
