"""Who follows whom."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.scheduling.upstreams import find_cycle, upstream_problem

NAMES = st.sampled_from("abcdef")


def test_a_cycle_is_told_link_by_link() -> None:
    edges = {"a": ["b"], "b": ["x", "c"], "c": ["a"]}
    problem = upstream_problem("team", "a", edges, [])
    assert problem is not None
    assert problem[0] == "UpstreamCycle"
    assert "a follows b follows c follows a" in problem[1]
    assert find_cycle("x", edges) == []


def test_whoever_follows_itself_is_a_cycle() -> None:
    assert find_cycle("a", {"a": ["a"]}) == ["a", "a"]


def test_who_follows_a_cycle_is_not_in_it() -> None:
    assert upstream_problem("team", "d", {"a": ["b"], "b": ["a"], "d": ["a"]}, []) is None


def test_what_is_missing_is_named_with_its_place() -> None:
    problem = upstream_problem("team", "a", {"a": ["b", "c"]}, ["c"])
    assert problem is not None
    assert problem[0] == "UpstreamNotFound"
    assert "spec.after[1].name: there is no connection c in namespace team" in problem[1]


@given(st.dictionaries(NAMES, st.lists(NAMES, unique=True)))
def test_there_is_a_cycle_for_somebody_just_where_no_order_exists(edges: dict[str, list[str]]) -> None:
    try:
        ordered = bool(list(TopologicalSorter(edges).static_order()) or True)
    except CycleError:
        ordered = False
    assert ordered != any(find_cycle(name, edges) for name in edges)
