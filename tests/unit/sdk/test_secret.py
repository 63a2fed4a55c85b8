"""The type of a credential that is not shown by accident, and the search of cursors for secrets."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from penstock_sdk import AuthenticationError, Batch, Connector, DefectError, Secret
from penstock_sdk._runtime.assignment import build
from penstock_sdk._runtime.commits import check_no_secret
from penstock_sdk._runtime.masking import Mask

VALUE = "canary-5f3a9c"
SECRET = Secret(VALUE)


class Credentials(msgspec.Struct):
    """Credentials with a text and secrets."""

    user: str
    password: Secret
    optional: Secret | None = None


class Source(Connector[dict[str, Any], Credentials]):
    """A connector with such credentials."""

    def authenticate(self) -> None:
        pass

    def discover(self) -> list[Any]:
        return []

    def read(self, *_: Any) -> Any:
        yield Batch([], cursor=None)


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        lambda secret: f"{secret} {secret!r} {secret:>20}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - also this
        lambda secret: repr([secret, {"password": secret}]),
        lambda secret: repr(Credentials("ada", secret)),
        lambda secret: repr(dir(secret)),
        lambda secret: str(logging.LogRecord("", 0, "", 0, "%s", (secret,), None).getMessage()),
    ],
)
def test_a_secret_is_not_shown(show: Callable[[Secret], str]) -> None:
    assert VALUE not in show(SECRET)


@pytest.mark.parametrize(
    "write", [json.dumps, pickle.dumps, msgspec.json.encode, msgspec.msgpack.encode, "".join, vars]
)
def test_a_secret_is_not_written(write: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError) as refused:
        write(SECRET)
    assert VALUE not in str(refused.value)


def test_a_secret_is_revealed_compared_and_copied() -> None:
    assert SECRET.reveal() == VALUE
    assert Secret(VALUE) == SECRET == copy.deepcopy(SECRET) == copy.copy(SECRET)
    assert SECRET != VALUE
    assert len({SECRET, Secret(VALUE), Secret("other")}) == 2
    assert SECRET
    assert not Secret("")


def test_credentials_may_have_secrets_beside_texts() -> None:
    made = build(Source, {}, {"user": "ada", "password": VALUE})
    assert made.credentials == Credentials("ada", SECRET)
    with pytest.raises(AuthenticationError, match="missing required field `password`"):
        build(Source, {}, {"user": "ada"})


@pytest.mark.parametrize(
    "cursor", [VALUE, {"after": f"https://source/?token={VALUE}"}, {VALUE: 1}, ["Y2FuYXJ5LTVmM2E5Yw=="]]
)
def test_a_cursor_with_a_secret_is_not_committed(cursor: Any) -> None:
    with pytest.raises(DefectError, match="the cursor of stream 'people' holds a credential") as refused:
        check_no_secret(Mask([VALUE]), "people", cursor)
    assert VALUE not in str(refused.value)


@pytest.mark.parametrize("cursor", [None, 5, {"after": "canary"}, {"id": "5f3a9c"}])
def test_any_other_cursor_is(cursor: Any) -> None:
    check_no_secret(Mask([VALUE]), "people", cursor)


def test_a_short_credential_is_not_searched_for_as_a_cursor_may_hold_it_by_chance() -> None:
    check_no_secret(Mask(["orders"]), "people", {"table": "orders"})
