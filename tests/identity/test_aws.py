"""AWS Signature Version 4 against the embedded S3, whose server computes each signature itself. It needs no Java."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from lxml import etree
from penstock_operator.embedded.s3 import EmbeddedS3
from penstock_operator.settings import S3Settings
from penstock_sdk import AuthenticationError
from penstock_sdk.auth import Auth

from tests.unit.sdk.auth.logins import login

KEYS = [
    "plain",
    "a b",
    "a+b",
    "ä/ö",
    "a=b&c",
    "(1)!*'",
    "~tilde",
    "a/b//c",
    "50%",
    "a%20b",
    "semi;colon",
    "at@x:y,z",
    "€",
]
REGION = "us-east-1"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Settings]:
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server:
        yield server.settings


def signed(s3: S3Settings, access_key: str | None = None, secret_key: str | None = None, region: str = REGION) -> Auth:
    """Return the login of a manifest, with the keys of the server unless others are given."""
    credentials = {
        "access_key_id": access_key or s3.access_key or "",
        "secret_access_key": secret_key or s3.secret_key or "",
    }
    return login("awsSigV4", credentials, {"service": "s3", "region": region})


def address(s3: S3Settings, key: str) -> httpx.URL:
    """Return the URL of an object."""
    return httpx.URL(s3.endpoint or "").copy_with(path=f"/{s3.bucket}/{key}")


def test_without_a_login_the_server_refuses(s3: S3Settings) -> None:
    assert httpx.get(address(s3, "plain")).status_code == 403


@pytest.mark.parametrize("key", KEYS)
def test_objects_are_written_and_read(s3: S3Settings, key: str) -> None:
    with signed(s3).client() as http:
        assert http.put(address(s3, key), content=key.encode() * 1000).status_code == 200
        assert http.get(address(s3, key)).content == key.encode() * 1000


def test_queries_are_signed(s3: S3Settings) -> None:
    with signed(s3).client() as http:
        http.put(address(s3, "list/a b+c"), content=b"1").raise_for_status()
        for prefix in ("list/", "list/a b", "list/a b+c"):
            query = {"prefix": prefix, "list-type": "2", "max-keys": "10", "delimiter": ""}
            answer = http.get(address(s3, ""), params=query).raise_for_status()
            found = [element.text for element in etree.fromstring(answer.content).iter("{*}Key")]
            assert found == ["list/a b+c"], prefix


def test_a_body_that_was_changed_on_its_way_is_refused(s3: S3Settings) -> None:
    """The signature covers the digest of the body, and the digest belongs to the body."""
    with httpx.Client() as http:
        request = http.build_request("PUT", address(s3, "changed"), content=b"sent")
        next(signed(s3).auth_flow(request))
        headers = {**request.headers, "x-amz-content-sha256": "0" * 64}
        assert http.put(request.url, content=b"sent", headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("access_key", "secret_key"), [(None, "wrong"), ("AKIAUNKNOWN", None), ("AKIAUNKNOWN", "wrong")]
)
def test_a_wrong_key_is_refused(s3: S3Settings, access_key: str | None, secret_key: str | None) -> None:
    with (
        signed(s3, access_key, secret_key).client() as http,
        pytest.raises(
            AuthenticationError, match=r"refuses access_key_id and secret_access_key.*(InvalidAccess|Signature)"
        ),
    ):
        http.get(address(s3, "plain"))
