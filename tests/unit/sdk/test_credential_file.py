"""A source that replaces its refresh token works from one command of an author to the next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from penstock_sdk.author.conformance import traceback_in
from penstock_sdk.author.credential_file import FILE, CredentialFile
from penstock_sdk.author.project import ProjectError

SECRET = {"refresh_token": "first", "client": "me"}


def test_what_a_source_replaced_is_there_for_the_next_command(tmp_path: Path) -> None:
    file = tmp_path / "connector.test.yaml"
    CredentialFile(file).hook_for(SECRET)("refresh_token", "second")
    assert CredentialFile(file).applied_to(SECRET) == {"refresh_token": "second", "client": "me"}
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_new_value_in_the_test_file_counts(tmp_path: Path) -> None:
    file = tmp_path / "connector.test.yaml"
    CredentialFile(file).hook_for(SECRET)("refresh_token", "second")
    edited = {**SECRET, "refresh_token": "given anew"}
    assert CredentialFile(file).applied_to(edited) == edited


def test_each_test_file_of_a_folder_keeps_its_own(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("connector.test.yaml", "eu.yaml", "us.yaml")]
    for number, file in enumerate(files):
        CredentialFile(file).hook_for({"token": f"first {number}"})("token", f"second {number}")
    for number, file in enumerate(files):
        assert CredentialFile(file).applied_to({"token": f"first {number}"}) == {"token": f"second {number}"}
    assert all(path.name.endswith(FILE) for path in tmp_path.iterdir()), "what .gitignore names"


def test_nothing_kept_makes_no_file(tmp_path: Path) -> None:
    CredentialFile(tmp_path / "connector.test.yaml").save()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ProjectError, match="remove it"):
        CredentialFile(tmp_path / "connector.test.yaml")


def test_the_trace_of_a_failed_attempt_is_found_in_its_log() -> None:
    trace = "Traceback (most recent call last):\n  File x\nKeyError: 'a'"
    line = json.dumps({"level": "error", "message": f"DefectError: it failed: {trace}"})
    assert traceback_in(f"plain\n{line}\n") == trace
    assert traceback_in(f"plain\n{trace}\n") == trace
    assert traceback_in('{"message": "all is well"}\nplain\n3\n') == ""
