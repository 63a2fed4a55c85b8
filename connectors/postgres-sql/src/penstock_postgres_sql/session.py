"""A session with the server: TLS, and settings that make values and statements mean the same whatever the role's own are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from penstock_sdk import ConfigError
from psycopg.rows import tuple_row

from penstock_postgres_sql.config import Config, Credentials, check
from penstock_postgres_sql.error_mapping import refused_login, translated
from penstock_postgres_sql.values import keep_values

CONNECT_SECONDS = 15
VERIFYING = ("verify-ca", "verify-full")

# A role or a database may set any of these (ALTER ROLE … SET). Those that a server is too old to know are left out.
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
    "idle_in_transaction_session_timeout": "0",  # Bronze may be slow: a read waits for its uploads
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "cursor_tuple_fraction": "1",  # everything is read: a plan that is quick to start with is not wanted
}
SET = """
SELECT set_config(wanted.name, wanted.value, false)
FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)
JOIN pg_catalog.pg_settings AS known ON lower(known.name) = wanted.name
"""


def connect(config: Config, credentials: Credentials) -> psycopg.Connection[Any]:
    """Open a session, ready to read."""
    check(config, credentials)
    where = where_of(config, credentials)
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
        raise refused_login(str(error), where) from None
    with translated(where, credentials.username):
        _settle(connection, config)
    return connection


def where_of(config: Config, credentials: Credentials) -> str:
    """Return how messages call the session."""
    return f"{credentials.username}@{config.host}:{config.port}/{config.database}"


def _settle(connection: psycopg.Connection[Any], config: Config) -> None:
    limit = max(1, int(config.statement_timeout_seconds * 1000)) if config.statement_timeout_seconds else 0
    connection.execute("SET statement_timeout = 0")
    wanted = {
        **SETTINGS,
        "row_security": "off" if config.row_security == "refuse" else "on",  # off: an error in place of hidden rows
        "statement_timeout": str(limit),
        "lock_timeout": str(max(1, int(config.lock_timeout_seconds * 1000))),  # a locked table holds up no other
    }
    connection.execute(SET, [list(wanted), list(wanted.values())])
    try:
        keep_values(connection, config.encoding)
    except (LookupError, psycopg.NotSupportedError):
        raise ConfigError(
            f"spec.config.encoding: {config.encoding!r} is an encoding that Python does not know"
        ) from None


@contextmanager
def _tls(config: Config, credentials: Credentials) -> Iterator[dict[str, Any]]:
    """Give libpq's TLS options. It reads files only: they are in the temporary directory for as long as it connects."""
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
        if authority and config.sslmode in VERIFYING:
            options["sslrootcert"] = files.enter_context(_file(_pem(authority, "caCertificate")))
        if credentials.client_certificate and credentials.client_key:
            options["sslcert"] = files.enter_context(_file(_pem(credentials.client_certificate, "clientCertificate")))
            options["sslkey"] = files.enter_context(_file(_pem(credentials.client_key, "clientKey")))
        yield options


def _pem(text: str, name: str) -> str:
    if "-----BEGIN " not in text or "-----END " not in text:
        raise ConfigError(f"{name}: is not PEM text, which begins with a line such as -----BEGIN CERTIFICATE-----")
    return text


@contextmanager
def _file(text: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:  # readable by this user only
        path = Path(folder) / "pem"
        path.write_text(text)
        path.chmod(0o600)
        yield str(path)
