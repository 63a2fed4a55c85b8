"""What the environment may say of the sweep."""

from __future__ import annotations

from typing import Any

import pytest
from penstock_operator.settings import SettingsError, Timings, database_url, http_url, required_url, timings
from psycopg.conninfo import conninfo_to_dict


def test_the_sweep_comes_as_often_as_the_platform_says() -> None:
    assert timings({}) == Timings()
    assert timings({"PENSTOCK_SWEEP_SECONDS": "10"}) == Timings(sweep=10.0)


@pytest.mark.parametrize("value", ["4", "0", "-1", "1e3", "often"])
def test_a_sweep_that_never_ends_or_never_comes_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"PENSTOCK_SWEEP_SECONDS.*5 or more"):
        timings({"PENSTOCK_SWEEP_SECONDS": value})


@pytest.mark.parametrize("value", ["https://s3.example.com", "http://10.0.0.1:9000", "https://[fd12::1]:443/path"])
def test_a_url_is_taken_as_it_is(value: str) -> None:
    assert http_url({"PENSTOCK_API_URL": f" {value} "}, "PENSTOCK_API_URL") == value
    assert http_url({}, "PENSTOCK_API_URL") == ""


@pytest.mark.parametrize(
    "value",
    [
        "nonsense",
        "s3.example.com:9000",
        "ftp://host",
        "http://",
        "http://h:port",
        "http://h:99999",
        "http://[::g]",
        "http://h:0",
        "https://me:hidden@host",
        "https://host?key=hidden",
        "https://host#hidden",
    ],
)
def test_a_value_that_is_no_url_is_refused_by_its_name_and_not_shown(value: str) -> None:
    with pytest.raises(SettingsError, match=r"PENSTOCK_S3_ENDPOINT .*https://host") as refusal:
        required_url({"PENSTOCK_S3_ENDPOINT": value}, "PENSTOCK_S3_ENDPOINT")
    assert "hidden" not in str(refusal.value)


def test_a_missing_variable_is_refused_with_its_meaning() -> None:
    with pytest.raises(SettingsError, match=r"PENSTOCK_API_URL is not set \(The run API"):
        required_url({}, "PENSTOCK_API_URL")


def verified(url: str, **environment: str) -> dict[str, Any]:
    return conninfo_to_dict(database_url({"PENSTOCK_DATABASE_URL": url, **environment}))


def test_a_postgres_in_the_network_is_verified_by_the_platforms_ca_or_the_systems() -> None:
    url = "postgresql://me:secret@db.example:5433/registry"
    found = verified(url, PENSTOCK_POSTGRES_CA_FILE="/etc/ca.crt")
    assert (found["sslmode"], found["sslrootcert"]) == ("verify-full", "/etc/ca.crt")
    assert (found["host"], found["port"], found["password"], found["dbname"]) == (
        "db.example",
        "5433",
        "secret",
        "registry",
    )
    assert verified(url)["sslrootcert"]
    assert verified("host=db.example dbname=registry")["sslmode"] == "verify-full"


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("postgresql://db.example/registry?sslmode=disable", {}),
        ("postgresql://db.example/registry", {"PGSSLMODE": "require"}),
        ("postgresql://127.0.0.1/registry", {}),
        ("postgresql://[::1]/registry", {}),
        ("postgresql://localhost/registry", {}),
        ("dbname=registry host=/run/postgresql", {}),
    ],
)
def test_what_is_asked_for_and_what_stays_on_the_machine_is_left_as_it_is(
    url: str, environment: dict[str, str]
) -> None:
    assert database_url({"PENSTOCK_DATABASE_URL": url, **environment}) == url


def test_an_address_that_is_none_is_refused_without_its_password() -> None:
    with pytest.raises(SettingsError, match="PENSTOCK_DATABASE_URL is no address") as raised:
        database_url({"PENSTOCK_DATABASE_URL": "postgresql://me:hidden@[host"})
    assert "hidden" not in str(raised.value)
