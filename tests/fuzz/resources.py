"""Documents made up from the CRDs' own schema: valid ones, nearly valid ones, and hostile ones."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st
from penstock_operator.resources.crds import schema_of

from tests.integration.world import MANIFEST


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
WORDS = {
    "name": ["faker", "orders", "people", "events"],
    "method": ["generate", "sql"],
    "version": ["^0.1", "*", "0.1.0", ">=9", "^" + "9" * 40],
    "schedule": ["@hourly", "*/15 * * * *", "0 0 31 2 *", "@reboot", "60 * * * *"],
    "timeZone": ["Etc/UTC", "Europe/Paris", "Mars/Base"],
    "since": ["2026-01-01T00:00:00Z", "2026-99-99T00:00:00Z", "0001-01-01T00:00:00+23:59"],
}
DURATIONS = ["1s", "10m", "1h30m", "0s", "99999999999999999999h"]


def of_schema(schema: dict[str, Any], name: str = "") -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one for each type
    """Return what the schema allows, as far as its structure tells; CEL rules are met by some of it."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        known = {key: of_schema(each, key) for key, each in schema["properties"].items()}
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
    path = draw(st.sampled_from([each for each in _paths(document["spec"]) if each] or [("x",)]))
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
