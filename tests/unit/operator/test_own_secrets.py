"""The platform's own credentials are in none of its messages."""

from __future__ import annotations

import importlib
import json
from urllib.parse import quote, quote_plus

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.cli.own_secrets import masked

main = importlib.import_module("penstock_operator.cli.main")
PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0,", exclude_categories=["Z", "C"]), min_size=8)


@given(PASSWORDS, st.sampled_from([str, repr, json.dumps, quote, quote_plus, lambda text: quote(text, safe="")]))
def test_a_password_is_masked_in_every_form(password: str, form: object) -> None:
    assert callable(form)
    url = f"postgresql://penstock:{quote(password, safe='')}@db/penstock"
    environment = {"PENSTOCK_DATABASE_URL": url, "AWS_SECRET_ACCESS_KEY": f"aws{password}"}
    shown = masked(f"cannot connect: <{form(password)}> {url} <{form(f'aws{password}')}>", environment)
    assert shown.count("<") - password.count("<") <= 2
    assert password not in shown
    assert quote(password, safe="") not in shown


def test_the_password_of_any_url_is_masked() -> None:
    text = "postgresql://u:pw%40x@h/d s3://key:s3cr@t@b host=db password='a b' user=u postgresql://h/d?password=hidden"
    shown = masked(text, {})
    assert all(secret not in shown for secret in ("pw%40x", "s3cr", "a b", "hidden"))
    assert (
        masked("https://penstock.example.org/path?x=1 at 10:30", {}) == "https://penstock.example.org/path?x=1 at 10:30"
    )


def test_an_error_of_a_command_shows_none(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PENSTOCK_DATABASE_URL", "postgresql://penstock:canary-5f3a@127.0.0.1:1/x")
    monkeypatch.setenv("PENSTOCK_TRACEBACK", "1")

    def fails(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("connection to postgresql://penstock:canary-5f3a@127.0.0.1:1/x failed")

    monkeypatch.setattr(main, "apply_migrations", fails)
    assert main.run(["migrate"]) == 2
    shown = "".join(capfd.readouterr())
    assert "canary" not in shown
    assert "the registry does not answer" in shown
    assert "Traceback" in shown
