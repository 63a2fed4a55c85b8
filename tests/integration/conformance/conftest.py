"""The databases of these tests are sources."""

from __future__ import annotations

from tests.integration.connectors.conftest import template_database

__all__ = ["template_database"]
