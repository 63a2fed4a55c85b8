"""The database's errors as the classes that say what to do. By SQLSTATE, as a server may speak any language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError, SourceContractError, TransientError
from penstock_sdk.errors import Scope
from psycopg import errors

from penstock_postgres_sql.quoting import quoted

CHANGED = "it was changed after discovery, or cannot be read"
COMPUTED = "correct the view or the row at the source, or leave the stream out by spec.streams"
UNKNOWN_AUTHORITY = (
    "spec.config.caCertificate: the server's certificate has expired, or no known authority has signed it; give the"
    " certificate of its authority, as PEM text, in spec.config.caCertificate or in the Secret's caCertificate"
)
BY_LOGIN: tuple[tuple[str, type[ConnectorError], str], ...] = (
    (
        r'FATAL: +(.* )?authentication failed|FATAL: +role ".*" (does not exist|is not permitted)|no password supplied',
        AuthenticationError,
        "the database refuses user or password; correct the Secret that spec.secretRef names",
    ),
    (r'FATAL: +database ".*" does not exist', ConfigError, "spec.config.database: the server has no such database"),
    (
        "permission denied for database",
        AuthenticationError,
        "the user may not enter the database; grant CONNECT on it",
    ),
    (
        "not currently accepting connections",
        ConfigError,
        "spec.config.database: the database accepts no connections; name another one",
    ),
    (
        "no pg_hba.conf entry|pg_hba.conf rejects",
        AuthenticationError,
        "the server's pg_hba.conf does not let this user in from here, or wants TLS (spec.config.sslmode)",
    ),
    ("server does not support SSL", ConfigError, "spec.config.sslmode: the server does not speak TLS"),
    (
        r"certificate verify failed|self-signed certificate|unable to get (local )?issuer|root certificate file",
        ConfigError,
        UNKNOWN_AUTHORITY,
    ),
    (
        r"server certificate for .* does not match host name|certificate could not be obtained|hostname mismatch",
        ConfigError,
        "spec.config.host: the server's certificate is for another name; use the name that it holds, or sslmode verify-ca",
    ),
    (
        r"alert unknown ca|certificate required|alert bad certificate|alert certificate|could not (load|read) (private key|certificate)|private key file|certificate authentication",
        AuthenticationError,
        "the server does not take the client's certificate; correct the Secret's clientCertificate and clientKey",
    ),
    (
        r"(could not translate|failed to resolve) host.*(not known|No address|nodename nor)",
        ConfigError,
        "spec.config.host: there is no such host",
    ),
    (
        r"invalid response to SSL negotiation|expected authentication request from server|unsupported frontend protocol|SSL error: (wrong version|packet length|unexpected message)",
        ConfigError,
        "spec.config.host, spec.config.port: what answers there is no Postgres server",
    ),
    (
        'invalid value for parameter "client_encoding"',
        ConfigError,
        "spec.config.encoding: the server knows no such encoding; name it as Postgres does, such as LATIN1 or WIN1252",
    ),
    (
        r"invalid (sslmode|port|integer|connection)|could not parse|unsupported startup parameter",
        ConfigError,
        "spec.config: the connection's options cannot be right",
    ),
)


def refused_login(text: str, where: str) -> ConnectorError:
    """Return what a refused connection asks for; libpq gives its text and no code."""
    reason = text.strip().splitlines()[0] if text.strip() else "no answer"
    for pattern, kind, remedy in BY_LOGIN:
        if re.search(pattern, text):
            return kind(f"{where}: {remedy}", operator_message=reason)
    return TransientError(f"{where}: the database cannot be reached: {reason}")


@contextmanager
def translated(what: str, user: str) -> Iterator[None]:
    """Turn the database's errors into the classes that say what to do; `what` names the stream or the step."""
    try:
        yield
    except psycopg.Error as error:
        raise as_connector_error(error, what, user) from None
    except UnicodeDecodeError:
        raise SourceContractError(
            f"{what}: there is text that is not in the database's encoding; name the encoding that it is in,"
            " such as LATIN1 or WIN1252, in spec.config.encoding"
        ) from None


def as_connector_error(error: psycopg.Error, what: str, user: str) -> ConnectorError:
    """Return what an error of the database asks for."""
    said = error.diag.message_primary or (str(error).strip().splitlines() or [type(error).__name__])[0]
    hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
    if error.diag.source_function == "check_enable_rls":
        return SourceContractError(
            f"{what}: row-level security would hide rows from the user {user}: {said};"
            f" ALTER ROLE {quoted(user)} BYPASSRLS, or set spec.config.rowSecurity: apply, to read only what the policies show"
        )
    for kinds, wanted, text in RULES:
        if isinstance(error, kinds):
            scope: Scope = "stream" if isinstance(error, OF_ONE_STREAM) else "source"
            return wanted(text.format(what=what, said=said, hint=hint, user=user), scope=scope)
    if isinstance(error, psycopg.DataError):
        return SourceContractError(f"{what}: a row of it cannot be computed: {_named(error)}; {COMPUTED}")
    return SourceContractError(f"{what}: {said}{hint}; {CHANGED}")


def _named(error: psycopg.DataError) -> str:
    """Return an error about data by the name of its code: the server's text quotes the data, in any language."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return f"{words} (SQLSTATE {error.sqlstate})"


Kinds = tuple[type[psycopg.Error], ...]
OF_ONE_STREAM: Kinds = (
    errors.InsufficientPrivilege,
    errors.LockNotAvailable,
    errors.QueryCanceled,
    errors.SerializationFailure,
    errors.DeadlockDetected,
)
"""Errors that leave the session as it was, and say nothing of other tables."""
RULES: tuple[tuple[Kinds, type[ConnectorError], str], ...] = (
    ((errors.InsufficientPrivilege,), AuthenticationError, "{what}: {said}; grant SELECT to {user}"),
    (
        (errors.LockNotAvailable,),
        TransientError,
        "{what}: another session holds a lock on it for longer than spec.config.lockTimeoutSeconds",
    ),
    (
        (errors.DeadlockDetected,),
        TransientError,
        "{what}: {said}; the next attempt tries again",
    ),
    (
        (errors.QueryCanceled,),
        TransientError,
        "{what}: {said}; where that is a time limit, raise spec.config.statementTimeoutSeconds",
    ),
    (
        (errors.UntranslatableCharacter, errors.CharacterNotInRepertoire),
        SourceContractError,
        "{what}: {said}; correct the text, or name its encoding in spec.config.encoding",
    ),
    ((errors.ObjectNotInPrerequisiteState,), SourceContractError, "{what}: {said}{hint}; correct it at the source"),
    (
        (errors.SerializationFailure,),
        TransientError,
        "{what}: {said}{hint}; on a standby, hot_standby_feedback or a longer max_standby_streaming_delay helps",
    ),
    (
        (psycopg.OperationalError, psycopg.InterfaceError),
        TransientError,
        "{what}: the database went away: {said}{hint}",
    ),
)
