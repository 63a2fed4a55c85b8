"""The options of a connection (`spec.config`), and the keys of its Secret."""

from __future__ import annotations

from typing import Literal

import msgspec
from penstock_sdk import ConfigError


class PostgresConfig(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The options in `spec.config`; connector.yaml describes each."""

    host: str
    database: str
    port: int = 5432
    sslmode: str = "prefer"
    ca_certificate: str | None = None
    encoding: str | None = None
    schemas: list[str] | None = None
    fetch_size: int = 2000
    partitions: int = 8
    partition_rows: int = 250_000
    cursor_fields: dict[str, str] = {}
    change_tracking: Literal["snapshot", "cursor"] = "snapshot"
    cursor_lag_seconds: float | None = None
    row_security: Literal["refuse", "apply"] = "refuse"
    statement_timeout_seconds: float | None = None
    lock_timeout_seconds: float = 30.0


class PostgresCredentials(msgspec.Struct, rename="camel"):
    """The keys of the Secret that `spec.secretRef` names."""

    password: str
    username: str = "postgres"
    ca_certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


def check(config: PostgresConfig, credentials: PostgresCredentials) -> None:
    """Raise ConfigError for options that libpq refuses or would understand differently."""
    texts = {
        "spec.config.host": config.host,
        "spec.config.database": config.database,
        "the Secret's username": credentials.username,
        "the Secret's password": credentials.password,
    }
    for name, text in texts.items():
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise ConfigError(
                f"{name}: it holds a character that Postgres does not accept (NUL, or half a surrogate pair); remove it"
            )
    if "," in config.host:
        raise ConfigError("spec.config.host: name one host; the hosts of a list could have different data")
    if config.schemas is not None and not config.schemas:
        raise ConfigError(
            "spec.config.schemas: it is empty, so nothing would be read; name schemas, or leave it out to read all"
        )
    if config.schemas and any("\0" in schema for schema in config.schemas):
        raise ConfigError(
            "spec.config.schemas: a name holds a NUL character, which Postgres does not accept; remove it"
        )
    if bool(credentials.client_certificate) != bool(credentials.client_key):
        raise ConfigError("the Secret's clientCertificate and clientKey: give both or neither")
