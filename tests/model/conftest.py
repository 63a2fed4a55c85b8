"""The servers of the integration tests."""

from tests.integration.conftest import database_url, postgres_url, template_database

__all__ = ["database_url", "postgres_url", "template_database"]
