"""`penstock bronze verify` finds what differs between a commit and the bucket."""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock_operator.bronze.store import BronzeStore, s3_client
from penstock_operator.settings import s3_settings

from tests.integration.test_up import FAKER, User


@pytest.fixture
def user(folder: Path, tmp_path: Path, backends_environment: dict[str, str]) -> User:
    return User(folder, tmp_path, backends_environment)


def verified(user: User, *arguments: str) -> tuple[int, str, str]:
    done = user.call("bronze", "verify", *arguments, "--data-dir", str(user.data))
    return done.returncode, done.stdout, done.stderr


def test_it_compares_commits_with_the_bucket(user: User) -> None:
    user.connection("good", connector=FAKER, config={"records": 300}, streams=[{"name": "people"}])
    code, results, errors = user.up()
    assert code == 0, errors
    run, (key, *_) = str(results["good"]["run_id"]), results["good"]["objects"]
    total = len(results["good"]["objects"])
    for arguments in ((), ("team/good", "--read"), ("--run", run), ("--run", run, "--read")):
        assert verified(user, *arguments) == (0, f"{total} objects compared, 0 differ\n", "")

    settings = s3_settings(user.environment)
    client, body = s3_client(settings, settings.endpoint), BronzeStore(settings).read(key)
    client.put_object(Bucket=settings.bucket, Key=key, Body=bytes(len(body)))
    for arguments in (("team/good",), ("--run", run)):
        code, out, told = verified(user, *arguments)
        assert (code, out) == (1, f"{total} objects compared, 1 differ\n")
        assert f"{key}: it has another checksum in the bucket" in told
    client.put_object(Bucket=settings.bucket, Key=key, Body=body[:-1])
    assert f"it has {len(body) - 1} bytes in the bucket, not {len(body)}" in verified(user)[2]
    client.delete_object(Bucket=settings.bucket, Key=key)
    assert "the bucket does not hold it" in verified(user, "--run", run)[2]
    client.put_object(Bucket=settings.bucket, Key=key, Body=body)
    assert verified(user)[0] == 0, "an object without a checksum in the bucket is read"


def test_it_needs_a_run_that_committed_or_a_place(user: User) -> None:
    user.connection("good", connector=FAKER, config={"records": 3}, streams=[{"name": "people"}])
    user.up()
    assert verified(user, "team/good", "--run", "x")[0] == 2
    assert "x" in verified(user, "--run", "x")[2]


def test_a_name_that_does_not_exist_is_no_empty_listing(user: User) -> None:
    user.connection("good", connector=FAKER, config={"records": 3}, streams=[{"name": "people"}])
    user.up()
    for command, where, said in (
        ("ls", "team/goood", "there is no connection team/goood (nearest: team/good)"),
        ("head", "goood", "there is no connection goood (nearest: good)"),
        ("verify", "other/good", "there is no connection other/good"),
        ("ls", "team/good/poeple", "team/good has no stream poeple (nearest: people)"),
        ("verify", "team/good/poeple", "team/good has no stream poeple"),
    ):
        done = user.call("bronze", command, where, "--data-dir", str(user.data))
        assert (done.returncode, said in done.stderr) == (2, True), (command, done.stderr)
