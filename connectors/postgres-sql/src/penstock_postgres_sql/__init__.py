"""Reads tables and views of a PostgreSQL database by SQL, in full or incrementally. Values are kept exactly."""

from __future__ import annotations

from penstock_postgres_sql.connector import PostgresSql

__all__ = ["PostgresSql"]
