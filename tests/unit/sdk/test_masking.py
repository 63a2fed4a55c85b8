"""No form of a secret passes the mask; what is no secret is left readable."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from penstock_sdk._runtime.connector_loader import non_secret_credentials
from penstock_sdk._runtime.masking import Mask, MaskedStream

AWKWARD = "pa'ss \"wörd\\"


def test_secrets_are_masked_longest_first() -> None:
    assert Mask(["hunter2", "hunter2000"])("hunter2000 hunter2") == "*** ***"


def test_a_short_secret_is_masked_where_it_stands_alone() -> None:
    assert Mask(["abc", ""])("abc, password=abc; abcdef") == "***, password=***; abcdef"
    assert Mask([])("nothing to hide") == "nothing to hide"


@pytest.mark.parametrize("secret", ["a b c", "1 2 3", "a\\nb\\nc", "\\n\\n"])
def test_a_secret_that_is_short_without_its_spaces_is_masked_where_it_stands_alone(secret: str) -> None:
    assert Mask([secret])(f"is {secret}, password={secret}; abc 123") == "is ***, password=***; abc 123"


@pytest.mark.parametrize("form", [str, quote, quote_plus, repr, json.dumps])
def test_a_secret_is_masked_in_the_forms_that_messages_give_it(form: Callable[[str], str]) -> None:
    assert Mask([AWKWARD])(form(AWKWARD)).strip("'\"") == "***"


def test_each_line_of_a_key_is_masked() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n"
    assert Mask([key])("line 2 of the key, MIIEvQIBADANBg, is odd") == "line 2 of the key, ***, is odd"


def test_what_is_printed_is_masked_by_whole_lines() -> None:
    real = io.StringIO()
    printed = MaskedStream(real, Mask(["hunter2000"]))
    for piece in ("login with hun", "ter", "2000\nand then"):
        print(piece, end="", file=printed, flush=True)
    assert real.getvalue() == "login with ***\n"
    printed.close()
    assert real.getvalue() == "login with ***\nand then\n"


def test_only_what_the_manifest_calls_no_secret_is_shown() -> None:
    credentials = [{"name": "username", "secret": False}, {"name": "password"}, {"name": "token", "secret": True}]
    methods = [{"type": "none"}, {"type": "basic", "credentials": credentials}]
    assert non_secret_credentials({"authentication": {"methods": methods}}) == {"username"}
