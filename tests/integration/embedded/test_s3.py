"""What the embedded S3 promises, on a real server."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import httpx
import pytest
from botocore.exceptions import ClientError
from penstock_operator.bronze.store import s3_client
from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded.s3 import EmbeddedS3
from penstock_operator.settings import S3Settings


def presigned(s3_server: S3Settings, key: str) -> str:
    """Return the URL of one PUT that creates the key."""
    url: str = s3_client(s3_server, s3_server.endpoint).generate_presigned_url(
        "put_object", Params={"Bucket": s3_server.bucket, "Key": key, "IfNoneMatch": "*"}, ExpiresIn=60
    )
    return url


@pytest.mark.parametrize("access_key", [None, "test", "000000000000", "unknown"])
def test_a_wrong_secret_is_refused(s3_server: S3Settings, access_key: str | None) -> None:
    """Neither our key nor those that ministack takes for root pass without the secret, whatever is asked."""
    wrong = dataclasses.replace(s3_server, access_key=access_key or s3_server.access_key, secret_key="wrong")
    client = s3_client(wrong, s3_server.endpoint)
    for ask in (
        client.list_buckets,
        lambda: client.list_objects_v2(Bucket=s3_server.bucket),
        lambda: client.put_object(Bucket=s3_server.bucket, Key="wrong", Body=b"1"),
        lambda: client.delete_object(Bucket=s3_server.bucket, Key="wrong"),
    ):
        with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|InvalidAccessKeyId"):
            ask()


@pytest.mark.parametrize("path", ["/_ministack/reset", "/_ministack/config", "/%5Fministack/reset"])
def test_ministacks_own_pages_are_closed(s3_server: S3Settings, path: str) -> None:
    """Its reset deletes every object and asks for no key; a page in a browser could send it."""
    client = s3_client(s3_server, s3_server.endpoint)
    client.put_object(Bucket=s3_server.bucket, Key="kept", Body=b"1")
    assert httpx.post(f"{s3_server.endpoint}{path}").status_code == 403
    assert client.get_object(Bucket=s3_server.bucket, Key="kept")["Body"].read() == b"1"


def test_without_credentials_nothing_is_read_or_written(s3_server: S3Settings) -> None:
    """Anonymous requests are refused."""
    s3_client(s3_server, s3_server.endpoint).put_object(Bucket=s3_server.bucket, Key="private", Body=b"1")
    assert httpx.get(f"{s3_server.endpoint}/{s3_server.bucket}/private").status_code == 403
    assert httpx.put(f"{s3_server.endpoint}/{s3_server.bucket}/mine", content=b"1").status_code == 403


def test_a_presigned_put_creates_once(s3_server: S3Settings) -> None:
    """The second PUT of a key is 412: an object of Bronze is never overwritten."""
    url = presigned(s3_server, "once")
    assert httpx.put(url, content=b"1", headers={"If-None-Match": "*"}).status_code == 200
    assert httpx.put(url, content=b"2", headers={"If-None-Match": "*"}).status_code == 412


def test_a_presigned_put_without_its_header_is_refused(s3_server: S3Settings) -> None:
    """The condition is signed: leaving it out is 403, so a pod cannot overwrite."""
    assert httpx.put(presigned(s3_server, "bare"), content=b"1").status_code == 403


def test_a_second_buckets_object_survives_kill_9(tmp_path: Path) -> None:
    """Objects are files as soon as the PUT returns, in buckets that we did not make too."""
    with EmbeddedS3(tmp_path) as server:
        client = s3_client(server.settings, server.settings.endpoint)
        client.create_bucket(Bucket="second")
        client.put_object(Bucket="second", Key="a/b", Body=b"kept")
        os.kill(server.pid, signal.SIGKILL)
    with EmbeddedS3(tmp_path) as server:
        client = s3_client(server.settings, server.settings.endpoint)
        assert client.get_object(Bucket="second", Key="a/b")["Body"].read() == b"kept"


def test_a_torn_pid_record_does_not_stop_a_start(tmp_path: Path) -> None:
    """A platform killed while it wrote the record starts the next time."""
    (tmp_path / "s3.pid").write_text("")
    with EmbeddedS3(tmp_path):
        pass


def test_a_second_platform_on_the_directory_is_refused(tmp_path: Path) -> None:
    """Two servers on the same files would not see each other's objects."""
    with EmbeddedS3(tmp_path), pytest.raises(EmbeddedError, match="in use by another platform"):
        EmbeddedS3(tmp_path).start()


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    """Nothing that ministack starts besides S3 is reachable from the network."""
    with EmbeddedS3(tmp_path) as server:
        owned = {str(path.readlink()) for path in Path(f"/proc/{server.pid}/fd").iterdir()}
        sockets = [
            line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()
        ]
    listening = {
        socket_[1].split(":")[0] for socket_ in sockets if socket_[3] == "0A" and f"socket:[{socket_[9]}]" in owned
    }
    assert listening == {"0100007F"}


def test_the_keys_are_private(tmp_path: Path) -> None:
    """Only their owner reads the keys."""
    with EmbeddedS3(tmp_path):
        assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("access-key", "secret")} == {0o600}
