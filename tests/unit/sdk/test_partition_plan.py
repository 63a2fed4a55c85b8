"""The cursor of a stream that is read in parts: what goes into the state comes back, and says what is left."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_sdk import DefectError, Partition, SourceContractError
from penstock_sdk._runtime.commits import PartitionedCursor
from penstock_sdk._runtime.partition_plan import (
    CURSOR_KEY,
    MAX_PARTITIONS,
    PartitionPlan,
    is_partitioned,
    new_plan,
    plan_from_cursor,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
IDS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8, unique=True)


@st.composite
def plans(draw: st.DrawFn) -> PartitionPlan:
    return new_plan("run1", [Partition(id=name, bounds=draw(JSON)) for name in draw(IDS)], None, "s")


def stored(ranges: PartitionPlan) -> Any:
    """What Postgres gives back."""
    return json.loads(json.dumps(ranges.as_cursor()))


@given(plan=plans(), data=st.data())
def test_any_progress_comes_back_from_the_state_as_it_was(plan: PartitionPlan, data: st.DataObject) -> None:
    for part in data.draw(st.lists(st.sampled_from(plan.progress), max_size=12)):
        plan = plan.advanced(part.id, data.draw(JSON), done=data.draw(st.booleans()))
    assert is_partitioned(stored(plan))
    assert plan_from_cursor(stored(plan), "s") == plan


@given(plan=plans(), data=st.data())
def test_progress_moves_one_partition_and_no_other(plan: PartitionPlan, data: st.DataObject) -> None:
    part, cursor = data.draw(st.sampled_from(plan.progress)), data.draw(JSON)
    after = plan.advanced(part.id, cursor, done=True)
    moved = [(old, new) for old, new in zip(plan.progress, after.progress, strict=True) if old != new]
    assert [new.id for _, new in moved] == [part.id]
    assert all((new.cursor, new.done, new.bounds) == (cursor, True, old.bounds) for old, new in moved)
    assert [partition.id for partition in after.unfinished] == [
        partition.id for partition in plan.progress if partition.id != part.id
    ]


@given(plan=plans(), data=st.data())
def test_within_a_run_what_is_done_is_left_out_and_in_the_next_run_nothing_is(
    plan: PartitionPlan, data: st.DataObject
) -> None:
    done = data.draw(st.sets(st.sampled_from([partition.id for partition in plan.progress])))
    for part in done:
        plan = plan.advanced(part, 1, done=True)
    assert {partition.id for partition in plan.remaining("run1")} == {
        partition.id for partition in plan.progress
    } - done
    assert plan.remaining("run2") == plan.progress


@given(plan=plans(), ids=IDS)
def test_the_next_plan_keeps_the_cursors_of_partitions_that_stayed(plan: PartitionPlan, ids: list[str]) -> None:
    for number, part in enumerate(plan.progress):
        plan = plan.advanced(part.id, {"n": number}, done=True)
    after = new_plan("run2", [Partition(id=name) for name in ids], plan, "s")
    cursors = {partition.id: partition.cursor for partition in plan.progress}
    assert [(partition.id, partition.cursor, partition.done) for partition in after.progress] == [
        (i, cursors.get(i), False) for i in ids
    ]


@given(plan=plans(), data=st.data())
def test_the_stream_is_done_with_its_last_partition(plan: PartitionPlan, data: st.DataObject) -> None:
    cursor, order = PartitionedCursor(plan), data.draw(st.permutations(plan.progress))
    said = [cursor.merging(part.id)(*(None, True))[1] for part in order]
    assert said == [*[False] * (len(order) - 1), True]


@given(cursor=JSON)
def test_a_cursor_of_a_connector_is_none_of_partitions(cursor: Any) -> None:
    assert not is_partitioned(cursor)


def test_bounds_are_from_the_start_as_they_come_back() -> None:
    ranges = new_plan("run1", [Partition(id="a", bounds=(1, {"to": (2, 3)}))], None, "s")
    assert ranges.progress[0].bounds == [1, {"to": [2, 3]}]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({CURSOR_KEY: 2, "run": "r", "ranges": [{"id": "a"}]}, "version 2"),
        ({CURSOR_KEY: 1, "ranges": [{"id": "a"}]}, "run"),
        ({CURSOR_KEY: 1, "run": "r", "ranges": [{"id": 7}]}, "id"),
        ({CURSOR_KEY: 1, "run": "r", "ranges": []}, "not unique"),
        ({CURSOR_KEY: 1, "run": "r", "ranges": [{"id": "a"}, {"id": "a"}]}, "not unique"),
    ],
)
def test_a_state_that_cannot_be_read_says_what_to_do(document: Any, words: str) -> None:
    with pytest.raises(SourceContractError, match=f"{words}.*reset the state"):
        plan_from_cursor(document, "s")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([Partition(id="a"), Partition(id="a")], "'a' more than once"),
        ([Partition(id="")], "empty"),
        ([Partition(id=str(n)) for n in range(MAX_PARTITIONS + 1)], "at most 1000"),
        ([Partition(id="a", bounds={1, 2j})], "not JSON"),
    ],
)
def test_partitions_that_cannot_be_kept_are_the_authors_defect(made: list[Partition], words: str) -> None:
    with pytest.raises(DefectError, match=words):
        new_plan("run1", made, None, "s")
