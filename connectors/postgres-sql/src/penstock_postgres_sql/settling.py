"""How far a cursor column that is set by a clock can be followed: up to where no open transaction can still write.

For `changeTracking: cursor`. A row's value is about the start of its transaction; so values before the start of the
oldest transaction that is open are all there.
"""

from __future__ import annotations

from typing import Any

import psycopg
from penstock_sdk import ConfigError, TransientError
from psycopg import sql

from penstock_postgres_sql.quoting import quoted

MARGIN_SECONDS = 5.0
"""What clocks, coarse columns and the moment between a transaction's start and its being listed may take."""

STANDING = """
SELECT pg_is_in_recovery(), (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
       OR pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
       (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())
"""
OLDEST = """
SELECT (least(clock_timestamp(), (SELECT min(xact_start) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid())) - {} * interval '1 second')::text
"""


def settled_before(session: psycopg.Connection[Any], user: str, lag_seconds: float | None) -> str:
    """Return the moment, as the database writes it, before which all values are there; call it before the snapshot is taken.

    Raises ConfigError where the server does not tell, TransientError while a prepared transaction hides its start.
    """
    standing = session.execute(STANDING).fetchone() or (False, False, 0)
    if standing[0]:
        raise ConfigError(
            "spec.config.changeTracking: cursor cannot be used on a standby, which does not know the primary's open"
            " transactions; use changeTracking: snapshot, or read the primary"
        )
    if not standing[1]:
        raise ConfigError(
            "spec.config.changeTracking: cursor needs to see when other transactions began: GRANT pg_read_all_stats TO"
            f" {quoted(user)}, or use changeTracking: snapshot"
        )
    if standing[2]:
        raise TransientError(
            f"{standing[2]} prepared transactions are open, and do not tell when they began; commit them or roll them"
            " back, or use changeTracking: snapshot"
        )
    lag = max(lag_seconds or 0.0, MARGIN_SECONDS)
    oldest = session.execute(sql.SQL(OLDEST).format(lag)).fetchone()
    if oldest is None:
        raise TransientError("the database does not tell its time")
    return str(oldest[0])
