"""The servers of the integration tests."""

from tests.integration.conftest import database_url, pool, postgres_url, s3_server, store, template_database, world

__all__ = ["database_url", "pool", "postgres_url", "s3_server", "store", "template_database", "world"]
