"""The servers of the integration tests."""

from tests.integration.conftest import database_url, migrated_database, postgres_url

__all__ = ["database_url", "migrated_database", "postgres_url"]
