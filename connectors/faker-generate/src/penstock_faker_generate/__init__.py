"""Generates records for tests: the same seed and number always give the same record."""

from __future__ import annotations

from penstock_faker_generate.connector import FakerGenerate

__all__ = ["FakerGenerate"]
