"""What all tests share."""

from __future__ import annotations

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.run_api.contract")

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")
