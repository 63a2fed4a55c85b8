"""Opens a session: TLS, and settings that give statements and values the same meaning for every role and database."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from penstock_sdk import ConfigError
from psycopg.rows import TupleRow, tuple_row

from penstock_postgres_sql.config import PostgresConfig, PostgresCredentials, check
from penstock_postgres_sql.error_mapping import login_error, mapped_errors
from penstock_postgres_sql.values import register_loaders

CONNECT_SECONDS = 15
VERIFYING_MODES = ("verify-ca", "verify-full")

# A role or a database may have other defaults (ALTER ROLE … SET). A setting that an old server does not know is left out.
SETTINGS = {
    "datestyle": "ISO, YMD",
    "intervalstyle": "iso_8601",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmloption": "content",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "transform_null_equals": "off",
    "array_nulls": "on",
    "client_min_messages": "error",
    "default_transaction_read_only": "on",
    "idle_in_transaction_session_timeout": "0",  # a read waits for its uploads, which may be slow
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "cursor_tuple_fraction": "1",  # all rows are read: a plan that returns the first rows early is no advantage
}
SET_SETTINGS = """
SELECT set_config(desired.name, desired.value, false)
FROM unnest(%s::text[], %s::text[]) AS desired (name, value)
JOIN pg_catalog.pg_settings AS known ON lower(known.name) = desired.name
"""


def connect(config: PostgresConfig, credentials: PostgresCredentials) -> psycopg.Connection[TupleRow]:
    """Open a session and apply its settings. Raises the SDK error that names the option or the Secret's key to correct."""
    check(config, credentials)
    name = session_name(config, credentials)
    try:
        with _tls(config, credentials) as tls:
            connection = psycopg.connect(
                host=config.host,
                port=config.port,
                dbname=config.database,
                user=credentials.username,
                password=credentials.password,
                connect_timeout=CONNECT_SECONDS,
                application_name="penstock",
                client_encoding=config.encoding or "UTF8",
                autocommit=True,
                prepare_threshold=None,
                row_factory=tuple_row,
                **tls,
            )
    except psycopg.Error as error:
        raise login_error(str(error), name) from None
    with mapped_errors(name, credentials.username):
        _apply_settings(connection, config)
    return connection


def session_name(config: PostgresConfig, credentials: PostgresCredentials) -> str:
    """Return the name of the session in messages."""
    return f"{credentials.username}@{config.host}:{config.port}/{config.database}"


def _apply_settings(connection: psycopg.Connection[TupleRow], config: PostgresConfig) -> None:
    limit = max(1, int(config.statement_timeout_seconds * 1000)) if config.statement_timeout_seconds else 0
    connection.execute("SET statement_timeout = 0")
    settings = {
        **SETTINGS,
        "row_security": "off"
        if config.row_security == "refuse"
        else "on",  # off: the server raises an error instead of hiding rows
        "statement_timeout": str(limit),
        "lock_timeout": str(
            max(1, int(config.lock_timeout_seconds * 1000))
        ),  # a locked table does not delay the other tables
    }
    connection.execute(SET_SETTINGS, [list(settings), list(settings.values())])
    try:
        register_loaders(connection, config.encoding)
    except (LookupError, psycopg.NotSupportedError):
        raise ConfigError(
            f"spec.config.encoding: Python does not know the encoding {config.encoding!r}; name another, such as LATIN1"
        ) from None


@contextmanager
def _tls(config: PostgresConfig, credentials: PostgresCredentials) -> Iterator[dict[str, Any]]:
    """Give libpq's TLS options. libpq reads keys from files only: they exist while it connects, in a temporary folder."""
    authority = config.ca_certificate or credentials.ca_certificate
    if config.sslmode == "verify-ca" and not authority:
        raise ConfigError(
            "spec.config.sslmode: verify-ca needs spec.config.caCertificate (or the Secret's caCertificate):"
            " the certificate of the server's authority, as PEM text"
        )
    options: dict[str, Any] = {"sslmode": config.sslmode}
    if config.sslmode == "verify-full" and not authority:
        options["sslrootcert"] = "system"
    with ExitStack() as files:
        if authority and config.sslmode in VERIFYING_MODES:
            options["sslrootcert"] = files.enter_context(_file(_pem(authority, "caCertificate")))
        if credentials.client_certificate and credentials.client_key:
            options["sslcert"] = files.enter_context(_file(_pem(credentials.client_certificate, "clientCertificate")))
            options["sslkey"] = files.enter_context(_file(_pem(credentials.client_key, "clientKey")))
        yield options


def _pem(text: str, name: str) -> str:
    if "-----BEGIN " not in text or "-----END " not in text:
        raise ConfigError(
            f"{name}: it is not PEM text; give text that begins with a line such as -----BEGIN CERTIFICATE-----"
        )
    return text


@contextmanager
def _file(text: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:  # only this user can read it
        path = Path(folder) / "pem"
        path.write_text(text)
        path.chmod(0o600)
        yield str(path)
