"""The servers of the integration tests."""

from tests.integration.conftest import database_url, migrated_database, pool, postgres_url, s3_server, store, world

__all__ = ["database_url", "migrated_database", "pool", "postgres_url", "s3_server", "store", "world"]
