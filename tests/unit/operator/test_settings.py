"""What the environment may say of the sweep."""

from __future__ import annotations

import pytest
from penstock_operator.settings import SettingsError, Timings, timings


def test_the_sweep_comes_as_often_as_the_platform_says() -> None:
    assert timings({}) == Timings()
    assert timings({"PENSTOCK_SWEEP_SECONDS": "10"}) == Timings(sweep=10.0)


@pytest.mark.parametrize("value", ["4", "0", "-1", "1e3", "often"])
def test_a_sweep_that_never_ends_or_never_comes_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"PENSTOCK_SWEEP_SECONDS.*5 or more"):
        timings({"PENSTOCK_SWEEP_SECONDS": value})
