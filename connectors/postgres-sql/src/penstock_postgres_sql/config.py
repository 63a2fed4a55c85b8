"""What a connection may set, and what its Secret may hold."""

from __future__ import annotations

from typing import Literal

import msgspec
from penstock_sdk import ConfigError


class Config(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What a connection may set."""

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


class Credentials(msgspec.Struct, rename="camel"):
    """The Secret's keys."""

    password: str
    username: str = "postgres"
    ca_certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


def check(config: Config, credentials: Credentials) -> None:
    """Raise ConfigError for what libpq would not take, or take for something else."""
    texts = {
        "spec.config.host": config.host,
        "spec.config.database": config.database,
        "the Secret's username": credentials.username,
        "the Secret's password": credentials.password,
    }
    for name, text in texts.items():
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise ConfigError(f"{name}: holds a character that Postgres does not take")
    if "," in config.host:
        raise ConfigError("spec.config.host: name one host; a list of hosts could lead to servers that differ")
    if config.schemas is not None and not config.schemas:
        raise ConfigError(
            "spec.config.schemas: is empty, so nothing would be read; name schemas, or leave it out for all"
        )
    if config.schemas and any("\0" in schema for schema in config.schemas):
        raise ConfigError("spec.config.schemas: holds a character that Postgres does not take")
    if bool(credentials.client_certificate) != bool(credentials.client_key):
        raise ConfigError("the Secret's clientCertificate and clientKey: give both or neither")
