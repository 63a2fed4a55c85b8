"""A source that is made up: seeded, as long as you like, and the same record for the same number every time."""

from __future__ import annotations

from penstock_faker_generate.connector import FakerGenerate

__all__ = ["FakerGenerate"]
