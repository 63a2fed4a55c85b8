"""Documents made up from the CRDs' own schema: valid ones, nearly valid ones, and hostile ones."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from penstock_operator.resources.crds import schema_of

from tests.integration.world import MANIFEST


def edge_documents(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the document with each field of its spec, given or not, at each edge of its type and of every other's."""
    schema = schema_of(document["kind"])["properties"]["spec"]
    for path, node in _fields(schema, ()):
        edges = [*EDGES.get(node.get("type", "object"), []), None, {}, [], 0]
        for edge in [*edges, *node.get("enum", [])]:
            changed = copy.deepcopy(document)
            if _put(changed["spec"], path, edge):
                yield ".".join(map(str, path)), changed
        if node.get("type") == "array":
            yield from _repeated(document, path)


def _fields(schema: dict[str, Any], path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    for key, child in schema.get("properties", {}).items():
        yield (*path, key), child
        yield from _fields(child, (*path, key))
        yield from _fields(child.get("items", {}), (*path, key, 0))


def _put(spec: Any, path: tuple[Any, ...], value: Any) -> bool:
    """Set a field, making what is above it; False below what is set to something else."""
    for key, following in pairwise(path):
        if isinstance(spec, list):
            if not spec:
                spec.append({} if "egress" in path else {"name": "people"})
        elif spec.get(key) is None:
            spec[key] = [] if following == 0 else {}
        spec = spec[key]
    spec[path[-1]] = value
    return True


def _repeated(document: dict[str, Any], path: tuple[Any, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for items in ([{"name": "people"}] * 2, [{"name": f"s{number}"} for number in range(501)]):
        changed = copy.deepcopy(document)
        _put(changed["spec"], path, items)
        yield ".".join(map(str, path)), changed


def _nested(depth: int) -> Any:
    found: Any = {}
    for _ in range(depth):
        found = {"x": found}
    return found


HOSTILE: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, -(2**70), 10**400, float("nan"), float("inf"), -0.0, 1e308]),
    st.sampled_from(
        ["", "\0", "a\0b", "\ud800", "\udfff", "a" * 70_000, "../../etc/passwd", "{{7*7}}", "'; --", "99" * 14 + "h"]
    ),
    st.text(max_size=40),
    st.builds(list),
    st.builds(dict),
    st.builds(_nested, st.sampled_from([3, 70, 3000])),
)
EDGES: dict[str, list[Any]] = {
    "string": [
        *(
            "",
            " ",
            "x",
            "x ",
            "\t",
            "\n",
            "\0",
            "\ud800",
            "é",
            "😀",
            "a" * 64,
            "a" * 5000,
            "true",
            "null",
            "0",
            "1",
            "-1",
        ),
        *("0s", "0ms", "0h0m0s", "999ms", "1s", "1", "10", "-1s", "1d", "1.5h", "9999h", "99999h", "30m", "20s"),
        *(
            "0Mi",
            "0",
            "512",
            "512m",
            "512MB",
            "512mi",
            "31Mi",
            "32Mi",
            "0.5Gi",
            "16Ti",
            "17Ti",
            "1e3Mi",
            "0.0",
            "0m",
            "9m",
        ),
        *("10m", "0.01", "0.001", "1024", "1025", ".5", "1.", "2.5", "500m", "0.5m"),
        *("2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01", "2026-02-30T00:00:00Z", "9999-12-31T23:59:59Z"),
        *("0 0 30 2 *", "* * * * *", "@reboot", "@hourly", "61 * * * *", "0 0 29 2 *", "* * * * * *"),
        *(
            "Europe/Paris",
            "CEST",
            "europe/paris",
            "Mars/Base",
            "../etc",
            "^1.2",
            "1.2",
            "v1.2.0",
            "1.2.0-rc.1",
            ">=0",
            "^",
        ),
    ],
    "integer": [0, 1, -1, 2, 9, 10, 100, 101, 1000, 1001, 2**31, 2**63 - 1, 2**63, 10**30, 1.5, "1", True],
    "number": [0, 1, -0.0, 1.0000001, 0.5, -1, float("nan"), float("inf"), "0.5"],
    "boolean": [True, False, "true", "false", 0, 1, "yes"],
    "array": [[], [{}], [None], {}, "x"],
    "object": [{}, {"unknown": 1}, [], "x", 0],
}
"""What each type's values look like at their edges: zero, negative, huge, empty, null, whitespace, another unit."""
WORDS = {
    "name": ["faker", "orders", "people", "events"],
    "method": ["generate", "sql"],
    "version": ["^0.1", "*", "0.1.0", ">=9", "^" + "9" * 40],
    "schedule": ["@hourly", "*/15 * * * *", "0 0 31 2 *", "@reboot", "60 * * * *"],
    "timeZone": ["Etc/UTC", "Europe/Paris", "Mars/Base"],
    "since": ["2026-01-01T00:00:00Z", "2026-99-99T00:00:00Z", "0001-01-01T00:00:00+23:59"],
}
DURATIONS = ["1s", "10m", "1h30m", "0s", "999ms", "99999999999999999999h"]


def of_schema(schema: dict[str, Any], name: str = "") -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one for each type
    """Return what the schema allows, as far as its structure tells; CEL rules are met by some of it."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        known = {key: of_schema(item, key) for key, item in schema["properties"].items()}
        needed = {key: known.pop(key) for key in schema.get("required", [])}
        return st.fixed_dictionaries(needed, optional=known)
    if kind == "array":
        return st.lists(of_schema(schema.get("items", {}), name), max_size=min(3, schema.get("maxItems", 3)))
    if kind == "integer":
        return st.integers(schema.get("minimum", -5), schema.get("maximum", 2**62))
    if kind == "boolean":
        return st.booleans()
    if kind == "string":
        rule = str(schema.get("x-kubernetes-validations", ""))
        words = DURATIONS if "duration" in rule else WORDS.get(name, ["word"])
        return st.sampled_from(words) | st.text(max_size=min(20, schema.get("maxLength", 20)))
    return st.dictionaries(st.sampled_from(["records", "seed", "x"]), st.integers() | st.text(max_size=5), max_size=2)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, child in children for found in _paths(child, (*path, key)))]


@st.composite
def spoiled(draw: st.DrawFn, documents: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """Put something hostile somewhere into a spec, or add a field, or take one away."""
    document = copy.deepcopy(draw(documents))
    path = draw(st.sampled_from([path for path in _paths(document["spec"]) if path] or [("x",)]))
    parent = document["spec"]
    for key in path[:-1]:
        parent = parent[key]
    action = draw(st.sampled_from(["put", "put", "add", "drop"]))
    if action == "drop" and isinstance(parent, dict):
        parent.pop(path[-1], None)
    elif action == "add" and isinstance(parent, dict):
        parent[draw(st.text(max_size=8))] = draw(HOSTILE)
    else:
        parent[path[-1]] = draw(HOSTILE)
    return document


def _document(kind: str, name: str, spec: dict[str, Any], annotations: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "fuzz", "uid": f"{kind}-{name}", "annotations": annotations}
    return {"apiVersion": "penstock.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


ASKS = ["penstock.io/requestedAt", "penstock.io/resetState", "penstock.io/rewindState"]
ANNOTATIONS = st.dictionaries(
    st.sampled_from(ASKS), st.text(max_size=20) | st.sampled_from(["t people", "t run1 people", "\0"]), max_size=2
)
FITTING = of_schema(schema_of("TenantConnection")["properties"]["spec"])
CONNECTIONS = st.builds(lambda spec, notes: _document("TenantConnection", "fuzzed", spec, notes), FITTING, ANNOTATIONS)
KNOWN = st.builds(lambda spec: {**spec, "connector": {"name": "faker", "method": "generate"}}, FITTING)
USABLE = st.builds(lambda spec, notes: _document("TenantConnection", "fuzzed", spec, notes), KNOWN, ANNOTATIONS)
DEFINITIONS = st.builds(
    lambda spec: _document("ConnectorDefinition", "fuzzed-rest-1.0.0", spec, {}),
    of_schema(schema_of("ConnectorDefinition")["properties"]["spec"])
    | st.just(
        {
            "image": f"i@sha256:{'0' * 64}",
            "manifest": {**MANIFEST, "name": "fuzzed", "method": "rest", "version": "1.0.0"},
        }
    ),
)
DOCUMENTS = st.one_of(CONNECTIONS, USABLE, DEFINITIONS, spoiled(CONNECTIONS), spoiled(USABLE), spoiled(DEFINITIONS))
