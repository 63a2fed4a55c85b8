"""Which connections follow which, and what is wrong with that. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock_operator.resources.conditions import Reason

Edges = Mapping[str, Sequence[str]]
Problem = tuple[Reason, str]


def find_cycle(name: str, upstreams: Edges) -> list[str]:
    """Return the way from a connection along its upstreams back to itself, empty where there is none."""
    waiting, seen = [[name]], set[str]()
    while waiting:
        path = waiting.pop()
        for upstream in upstreams.get(path[-1], ()):
            if upstream == name:
                return [*path, name]
            if upstream not in seen:
                seen.add(upstream)
                waiting.append([*path, upstream])
    return []


def upstream_problem(namespace: str, name: str, upstreams: Edges, missing: Sequence[str]) -> Problem | None:
    """Return what keeps a connection from following its upstreams."""
    cycle = find_cycle(name, upstreams)
    if cycle:
        return "UpstreamCycle", (
            f"spec.after: {' follows '.join(cycle)}: a cycle never begins; remove one of them from spec.after"
        )
    if missing:
        index = list(upstreams[name]).index(missing[0])
        return "UpstreamNotFound", (
            f"spec.after[{index}].name: there is no connection {missing[0]} in namespace {namespace}; create it, or remove"
            " it from spec.after"
        )
    return None
