"""The cursor of a stream that is read in parts: what goes into the state comes back, and says what is left."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_sdk import DefectError, Partition, SourceContractError
from penstock_sdk._runtime.commits import SplitCursor
from penstock_sdk._runtime.ranges import MARK, MOST_RANGES, Ranges, is_split, planned, ranges_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
IDS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8, unique=True)


@st.composite
def plans(draw: st.DrawFn) -> Ranges:
    return planned("run1", [Partition(id=each, bounds=draw(JSON)) for each in draw(IDS)], None, "s")


def stored(ranges: Ranges) -> Any:
    """What Postgres gives back."""
    return json.loads(json.dumps(ranges.as_cursor()))


@given(plan=plans(), data=st.data())
def test_any_progress_comes_back_from_the_state_as_it_was(plan: Ranges, data: st.DataObject) -> None:
    for part in data.draw(st.lists(st.sampled_from(plan.parts), max_size=12)):
        plan = plan.advanced(part.id, data.draw(JSON), done=data.draw(st.booleans()))
    assert is_split(stored(plan))
    assert ranges_of(stored(plan), "s") == plan


@given(plan=plans(), data=st.data())
def test_progress_moves_one_part_and_no_other(plan: Ranges, data: st.DataObject) -> None:
    part, cursor = data.draw(st.sampled_from(plan.parts)), data.draw(JSON)
    after = plan.advanced(part.id, cursor, done=True)
    moved = [(old, new) for old, new in zip(plan.parts, after.parts, strict=True) if old != new]
    assert [new.id for _, new in moved] == [part.id]
    assert all((new.cursor, new.done, new.bounds) == (cursor, True, old.bounds) for old, new in moved)
    assert [each.id for each in after.open] == [each.id for each in plan.parts if each.id != part.id]


@given(plan=plans(), data=st.data())
def test_within_a_run_what_is_done_is_left_out_and_in_the_next_run_nothing_is(
    plan: Ranges, data: st.DataObject
) -> None:
    done = data.draw(st.sets(st.sampled_from([each.id for each in plan.parts])))
    for part in done:
        plan = plan.advanced(part, 1, done=True)
    assert {each.id for each in plan.left("run1")} == {each.id for each in plan.parts} - done
    assert plan.left("run2") == plan.parts


@given(plan=plans(), ids=IDS)
def test_the_next_plan_keeps_the_cursors_of_parts_that_stayed(plan: Ranges, ids: list[str]) -> None:
    for number, part in enumerate(plan.parts):
        plan = plan.advanced(part.id, {"n": number}, done=True)
    after = planned("run2", [Partition(id=each) for each in ids], plan, "s")
    cursors = {each.id: each.cursor for each in plan.parts}
    assert [(each.id, each.cursor, each.done) for each in after.parts] == [(i, cursors.get(i), False) for i in ids]


@given(plan=plans(), data=st.data())
def test_the_stream_is_done_with_its_last_part(plan: Ranges, data: st.DataObject) -> None:
    cursor, order = SplitCursor(plan), data.draw(st.permutations(plan.parts))
    said = [cursor.covering(part.id)(*(None, True))[1] for part in order]
    assert said == [*[False] * (len(order) - 1), True]


@given(cursor=JSON)
def test_a_cursor_of_a_connector_is_none_of_parts(cursor: Any) -> None:
    assert not is_split(cursor)


def test_bounds_are_from_the_start_as_they_come_back() -> None:
    ranges = planned("run1", [Partition(id="a", bounds=(1, {"to": (2, 3)}))], None, "s")
    assert ranges.parts[0].bounds == [1, {"to": [2, 3]}]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({MARK: 2, "run": "r", "ranges": [{"id": "a"}]}, "version 2"),
        ({MARK: 1, "ranges": [{"id": "a"}]}, "run"),
        ({MARK: 1, "run": "r", "ranges": [{"id": 7}]}, "id"),
        ({MARK: 1, "run": "r", "ranges": []}, "told apart"),
        ({MARK: 1, "run": "r", "ranges": [{"id": "a"}, {"id": "a"}]}, "told apart"),
    ],
)
def test_a_state_that_cannot_be_read_says_what_to_do(document: Any, words: str) -> None:
    with pytest.raises(SourceContractError, match=f"{words}.*reset the state"):
        ranges_of(document, "s")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([Partition(id="a"), Partition(id="a")], "'a' more than once"),
        ([Partition(id="")], "empty"),
        ([Partition(id=str(n)) for n in range(MOST_RANGES + 1)], "at most 1000"),
        ([Partition(id="a", bounds={1, 2j})], "no JSON"),
    ],
)
def test_parts_that_cannot_be_kept_are_the_authors_defect(made: list[Partition], words: str) -> None:
    with pytest.raises(DefectError, match=words):
        planned("run1", made, None, "s")
