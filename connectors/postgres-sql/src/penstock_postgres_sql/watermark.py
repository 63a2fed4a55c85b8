"""The watermark of a timestamp column: no open transaction can still write a row with an earlier value.

Used with `changeTracking: cursor`. The value that a clock gives a row is close to the start of its transaction. So every
row with a value before the start of the oldest open transaction has been committed.
"""

from __future__ import annotations

import psycopg
from penstock_sdk import ConfigError, TransientError
from psycopg import sql
from psycopg.rows import TupleRow

from penstock_postgres_sql.quoting import quote_name

MARGIN_SECONDS = 5.0
"""Covers clocks that differ, columns with coarse values, and the delay until a new transaction appears in pg_stat_activity."""

SERVER_STATE = """
SELECT pg_is_in_recovery(), (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
       OR pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
       (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())
"""
OLDEST_TRANSACTION = """
SELECT (least(clock_timestamp(), (SELECT min(xact_start) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid())) - {} * interval '1 second')::text
"""


def find_watermark(session: psycopg.Connection[TupleRow], user: str, lag_seconds: float | None) -> str:
    """Return the watermark as the database writes a timestamp. Call this before the read takes its snapshot.

    Raises ConfigError on a standby and for a user without the role pg_read_all_stats, and TransientError while there are
    prepared transactions, as the server does not show when they began.
    """
    is_standby, sees_transactions, prepared = session.execute(SERVER_STATE).fetchone() or (False, False, 0)
    if is_standby:
        raise ConfigError(
            "spec.config.changeTracking: cursor cannot be used on a standby, which does not know the primary's open"
            " transactions; use changeTracking: snapshot, or read the primary"
        )
    if not sees_transactions:
        raise ConfigError(
            "spec.config.changeTracking: cursor needs to see when other transactions began: GRANT pg_read_all_stats TO"
            f" {quote_name(user)}, or use changeTracking: snapshot"
        )
    if prepared:
        raise TransientError(
            f"{prepared} prepared transactions are open, and the server does not show when they began; commit them or"
            " roll them back, or use changeTracking: snapshot"
        )
    lag = max(lag_seconds or 0.0, MARGIN_SECONDS)
    oldest = session.execute(sql.SQL(OLDEST_TRANSACTION).format(lag)).fetchone()
    if oldest is None:
        raise TransientError("the database did not return its time; the next attempt asks again")
    return str(oldest[0])
