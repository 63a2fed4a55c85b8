"""Maps the database's errors to the SDK's error classes, each with its remedy.

Errors are told apart by SQLSTATE, as a server may be set to any language. Only libpq's errors from before a session is
open have no code, so those are told apart by their text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError, SourceContractError, TransientError
from penstock_sdk.errors import Scope
from psycopg import errors

from penstock_postgres_sql.quoting import quote_name

SCHEMA_CHANGED = "it was changed after discovery, or cannot be read"
DATA_ERROR_REMEDY = "correct the view or the row at the source, or leave the stream out of spec.streams"
UNKNOWN_AUTHORITY = (
    "spec.config.caCertificate: the server's certificate has expired, or no known authority has signed it; give the"
    " certificate of its authority, as PEM text, in spec.config.caCertificate or in the Secret's caCertificate"
)


@dataclass(frozen=True, slots=True)
class LoginRule:
    """A pattern of libpq's message for a refused connection, and the error to raise for it."""

    pattern: str
    error_class: type[ConnectorError]
    remedy: str


LOGIN_RULES = (
    LoginRule(
        r'FATAL: +(.* )?authentication failed|FATAL: +role ".*" (does not exist|is not permitted)|no password supplied',
        AuthenticationError,
        "the database refuses user or password; correct the Secret that spec.secretRef names",
    ),
    LoginRule(
        r'FATAL: +database ".*" does not exist',
        ConfigError,
        "spec.config.database: the server has no such database; correct the name",
    ),
    LoginRule(
        "permission denied for database",
        AuthenticationError,
        "the user may not connect to the database; grant CONNECT on it",
    ),
    LoginRule(
        "not currently accepting connections",
        ConfigError,
        "spec.config.database: the database accepts no connections; name another one",
    ),
    LoginRule(
        "no pg_hba.conf entry|pg_hba.conf rejects",
        AuthenticationError,
        "the server's pg_hba.conf does not allow this user from this host, or requires TLS; change pg_hba.conf, or set"
        " spec.config.sslmode",
    ),
    LoginRule(
        "server does not support SSL",
        ConfigError,
        "spec.config.sslmode: the server does not support TLS; turn TLS on at the server, or set sslmode: prefer",
    ),
    LoginRule(
        r"certificate verify failed|self-signed certificate|unable to get (local )?issuer|root certificate file",
        ConfigError,
        UNKNOWN_AUTHORITY,
    ),
    LoginRule(
        r"server certificate for .* does not match host name|certificate could not be obtained|hostname mismatch",
        ConfigError,
        "spec.config.host: the server's certificate is for another name; use a name that it holds, or sslmode verify-ca",
    ),
    LoginRule(
        r"alert unknown ca|certificate required|alert bad certificate|alert certificate|could not (load|read) (private key|certificate)|private key file|certificate authentication",
        AuthenticationError,
        "the server does not accept the client's certificate; correct the Secret's clientCertificate and clientKey",
    ),
    LoginRule(
        r"(could not translate|failed to resolve) host.*(not known|No address|nodename nor)",
        ConfigError,
        "spec.config.host: there is no such host; correct the name",
    ),
    LoginRule(
        r"invalid response to SSL negotiation|expected authentication request from server|unsupported frontend protocol|SSL error: (wrong version|packet length|unexpected message)",
        ConfigError,
        "spec.config.host, spec.config.port: no Postgres server answers there; correct host and port",
    ),
    LoginRule(
        'invalid value for parameter "client_encoding"',
        ConfigError,
        "spec.config.encoding: the server knows no such encoding; name it as Postgres does, such as LATIN1 or WIN1252",
    ),
    LoginRule(
        r"invalid (sslmode|port|integer|connection)|could not parse|unsupported startup parameter",
        ConfigError,
        "spec.config: the connection's options are not valid; correct host, port and sslmode",
    ),
)


def login_error(text: str, session_name: str) -> ConnectorError:
    """Return the error for a refused connection, from libpq's message."""
    reason = text.strip().splitlines()[0] if text.strip() else "no answer"
    for rule in LOGIN_RULES:
        if re.search(rule.pattern, text):
            return rule.error_class(f"{session_name}: {rule.remedy}", operator_message=reason)
    return TransientError(f"{session_name}: the database cannot be reached: {reason}")


@contextmanager
def mapped_errors(subject: str, user: str) -> Iterator[None]:
    """Raise the database's errors as SDK errors. `subject` names the stream or the step that failed."""
    try:
        yield
    except psycopg.Error as error:
        raise as_connector_error(error, subject, user) from None
    except UnicodeDecodeError:
        raise SourceContractError(
            f"{subject}: there is text that is not in the database's encoding; name the encoding that it is in,"
            " such as LATIN1 or WIN1252, in spec.config.encoding"
        ) from None


def as_connector_error(error: psycopg.Error, subject: str, user: str) -> ConnectorError:
    """Return the SDK error for an error of the database."""
    reason = error.diag.message_primary or (str(error).strip().splitlines() or [type(error).__name__])[0]
    hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
    if error.diag.source_function == "check_enable_rls":
        return SourceContractError(
            f"{subject}: row-level security would hide rows from the user {user}: {reason};"
            f" ALTER ROLE {quote_name(user)} BYPASSRLS, or set spec.config.rowSecurity: apply, to read only what the"
            " policies show"
        )
    for rule in ERROR_RULES:
        if isinstance(error, rule.errors):
            scope: Scope = "stream" if isinstance(error, STREAM_ERRORS) else "source"
            message = rule.message.format(subject=subject, reason=reason, hint=hint, user=user)
            return rule.error_class(message, scope=scope)
    if isinstance(error, psycopg.DataError):
        return SourceContractError(
            f"{subject}: a row of it cannot be computed: {_error_name(error)}; {DATA_ERROR_REMEDY}"
        )
    return SourceContractError(f"{subject}: {reason}{hint}; {SCHEMA_CHANGED}")


def _error_name(error: psycopg.DataError) -> str:
    """Return the name of the error's SQLSTATE. The server's own message quotes the data, in any language."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return f"{words} (SQLSTATE {error.sqlstate})"


ErrorTypes = tuple[type[psycopg.Error], ...]
STREAM_ERRORS: ErrorTypes = (
    errors.InsufficientPrivilege,
    errors.LockNotAvailable,
    errors.QueryCanceled,
    errors.SerializationFailure,
    errors.DeadlockDetected,
)
"""Errors of one stream: the session stays usable, and other tables may be readable."""


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """Errors of the database, and the SDK error to raise for them."""

    errors: ErrorTypes
    error_class: type[ConnectorError]
    message: str


ERROR_RULES = (
    ErrorRule((errors.InsufficientPrivilege,), AuthenticationError, "{subject}: {reason}; grant SELECT to {user}"),
    ErrorRule(
        (errors.LockNotAvailable,),
        TransientError,
        "{subject}: another session holds a lock on it for longer than spec.config.lockTimeoutSeconds; end that session,"
        " or raise lockTimeoutSeconds",
    ),
    ErrorRule((errors.DeadlockDetected,), TransientError, "{subject}: {reason}; the next attempt tries again"),
    ErrorRule(
        (errors.QueryCanceled,),
        TransientError,
        "{subject}: {reason}; if a time limit ended it, raise spec.config.statementTimeoutSeconds",
    ),
    ErrorRule(
        (errors.UntranslatableCharacter, errors.CharacterNotInRepertoire),
        SourceContractError,
        "{subject}: {reason}; correct the text, or name its encoding in spec.config.encoding",
    ),
    ErrorRule(
        (errors.ObjectNotInPrerequisiteState,),
        SourceContractError,
        "{subject}: {reason}{hint}; correct it at the source",
    ),
    ErrorRule(
        (errors.SerializationFailure,),
        TransientError,
        "{subject}: {reason}{hint}; on a standby, set hot_standby_feedback or a longer max_standby_streaming_delay",
    ),
    ErrorRule(
        (psycopg.OperationalError, psycopg.InterfaceError),
        TransientError,
        "{subject}: the connection to the database was lost: {reason}{hint}",
    ),
)
