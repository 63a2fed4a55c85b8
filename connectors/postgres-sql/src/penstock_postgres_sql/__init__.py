"""PostgreSQL by SQL: tables and views, in full or by a cursor column, with every value kept as it is."""

from __future__ import annotations

from penstock_postgres_sql.connector import PostgresSql

__all__ = ["PostgresSql"]
