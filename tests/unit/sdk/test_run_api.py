"""The suite's run API refuses what the platform refuses: or a connector could pass here and fail there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import zstandard
from penstock_sdk import protocol as wire
from penstock_sdk.testing import RunApi

IDENTITY = wire.ConnectorIdentity(name="trial", method="rest", version="1.0.0")
BODY = zstandard.compress(b'{"op":"upsert","data":{"id":1}}\n')


@pytest.fixture
def api() -> Iterator[RunApi]:
    with RunApi(IDENTITY, {}) as running:
        running.next_attempt()
        yield running


def call(api: RunApi, path: str, content: dict[str, Any], token: str | None = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token or api.token}"}
    return httpx.post(f"{api.url}/v1/attempts/{path}", json=content, headers=headers)


def uploaded(api: RunApi, body: bytes = BODY) -> dict[str, Any]:
    (grant,) = call(api, "uploads", {"stream": "items", "count": 1}).json()["grants"]
    assert httpx.put(grant["url"], content=body, headers=grant["headers"]).status_code == 200
    digest = hashlib.sha256(BODY).hexdigest()
    return {"key": grant["key"], "sequence": 1, "records": 1, "bytes": len(BODY), "sha256": digest}


def test_a_commit_counts_once_however_often_it_is_sent(api: RunApi) -> None:
    commit = {"stream": "items", "checkpoint": 1, "cursor": 7, "objects": [uploaded(api)]}
    assert call(api, "checkpoints", commit).json() == {"checkpoint": 1}
    assert call(api, "checkpoints", commit).json() == {"checkpoint": 1}
    assert [line["data"] for line in api.state("items").records] == [{"id": 1}]


def test_an_attempt_that_was_taken_over_commits_nothing(api: RunApi) -> None:
    before, commit = api.token, {"stream": "items", "checkpoint": 1, "objects": [uploaded(api)]}
    api.next_attempt()
    refused = call(api, "checkpoints", commit, before)
    assert (refused.status_code, refused.json()["code"]) == (409, "fenced")
    assert api.state("items").checkpoint == 0


def test_a_gap_in_the_checkpoints_is_a_mismatch(api: RunApi) -> None:
    refused = call(api, "checkpoints", {"stream": "items", "checkpoint": 2})
    assert (refused.status_code, refused.json()["code"]) == (409, "mismatch")


def test_an_object_that_is_not_in_the_bucket_as_it_was_described_is_refused(api: RunApi) -> None:
    described = uploaded(api, body=BODY + b" ")
    refused = call(api, "checkpoints", {"stream": "items", "checkpoint": 1, "objects": [described]})
    assert (refused.status_code, refused.json()["code"]) == (422, "mismatch")


def test_the_bucket_overwrites_nothing_and_takes_only_what_was_signed(api: RunApi) -> None:
    (grant,) = call(api, "uploads", {"stream": "items", "count": 1}).json()["grants"]
    assert httpx.put(grant["url"], content=b"1").status_code == 403
    assert httpx.put(grant["url"], content=b"1", headers=grant["headers"]).status_code == 200
    assert httpx.put(grant["url"], content=b"2", headers=grant["headers"]).status_code == 412
