"""Pages in cycles are freed at batch borders, whatever the collector's thresholds are."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from penstock_sdk._runtime.gc_tuning import COLLECT_SECONDS, YoungGenerationCollector


class Page:
    """A response: an object in a cycle that holds much."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def patient_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(1_000_000)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("patient_collector")
def test_a_page_is_freed_once_the_time_has_come_and_not_before() -> None:
    now = [0.0]
    garbage = YoungGenerationCollector(lambda: now[0])
    gone = weakref.ref(Page())
    now[0] = COLLECT_SECONDS / 2
    garbage.batch_ended()
    assert gone() is not None
    now[0] = COLLECT_SECONDS
    garbage.batch_ended()
    assert gone() is None
