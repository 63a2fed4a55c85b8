"""Schemas of authors and configs of tenants: each limit, and the cost of an evaluation."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from penstock_sdk.manifest import config_problems
from penstock_sdk.manifest.config_schema import (
    MAX_CONFIG_BYTES,
    MAX_PATTERN_CHARACTERS,
    MAX_PROBLEMS,
    MAX_SCHEMA_BYTES,
    MAX_SCHEMA_DEPTH,
    MAX_SCHEMA_NODES,
    schema_problems,
)

TEXT: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}


def accepted(schema: Any) -> None:
    assert schema_problems(schema, "configSchema") == []


def refused(schema: Any, *words: str) -> None:
    (problem,) = schema_problems(schema, "configSchema")
    assert problem.startswith("configSchema")
    assert all(word in problem for word in words), problem


def pattern(text: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": {"type": "string", "pattern": text}}}


@pytest.mark.parametrize("text", ["^[a-z0-9-]+$", r"^\d{4}-\d{2}$", "^(a|aa)+$", r"^s3://[^/]+(/.*)?$"])
def test_a_regular_expression_is_accepted(text: str) -> None:
    accepted(pattern(text))


@pytest.mark.parametrize("text", ["(?=a)b", "(?<!a)b", r"(a)\1", "(a{1000}){1000}", "(", "a" * 1001])
def test_a_pattern_that_linear_time_cannot_do_is_refused(text: str) -> None:
    refused(pattern(text), "pattern")
    refused({"type": "object", "patternProperties": {text: {}}}, "pattern")


def test_a_pattern_has_at_most_1000_characters() -> None:
    accepted(pattern("a" * MAX_PATTERN_CHARACTERS))
    refused(pattern("a" * (MAX_PATTERN_CHARACTERS + 1)), "1,001 characters", "at most 1,000")


def test_a_config_value_that_stopped_the_controller_takes_no_time() -> None:
    """In a process of its own, which can be killed: with a backtracking engine the match takes longer than the universe."""
    program = (
        "from penstock_sdk.manifest import config_problems\n"
        "schema = {'type': 'object', 'properties': {'a': {'type': 'string', 'pattern': '^(a+)+$'}}}\n"
        "print(config_problems({'a': 'a' * 60_000 + 'b'}, schema)[0][:13])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert ran.stdout == "spec.config.a\n"


def test_a_schema_has_at_most_2000_subschemas_with_its_references_written_out() -> None:
    def schema(references: int) -> dict[str, Any]:
        hundred = {"properties": {f"p{index}": {} for index in range(98)}}  # with `properties` and itself: 100
        return {"$defs": {"hundred": hundred}, "allOf": [{"$ref": "#/$defs/hundred"}] * references}

    accepted(schema(18))
    refused(schema(20), f"{MAX_SCHEMA_NODES:,} subschemas")


def test_references_that_double_at_each_level_are_refused() -> None:
    definitions: dict[str, Any] = {"l0": {"type": "string"}}
    for level in range(1, 40):
        definitions[f"l{level}"] = {"allOf": [{"$ref": f"#/$defs/l{level - 1}"}] * 2}
    refused({"$defs": dict(reversed(definitions.items())), "$ref": "#/$defs/l39"}, "subschemas")


@pytest.mark.parametrize(
    ("reference", "word"),
    [
        ("http://169.254.169.254/latest", "another document"),
        ("file:///etc/passwd", "another document"),
        ("other.json#/a", "another document"),
        ("#", "refers to itself"),
        ("#/$defs/none", "refers to nothing"),
        ("#/properties/a", "refers to itself"),
    ],
)
def test_a_reference_stays_inside_and_does_not_come_back(reference: str, word: str) -> None:
    refused({"type": "object", "properties": {"a": {"$ref": reference}}}, reference, word)


def test_a_reference_to_a_definition_is_accepted_and_evaluated() -> None:
    schema = {"$defs": {"name": {"type": "string"}}, "type": "object", "properties": {"a": {"$ref": "#/$defs/name"}}}
    accepted(schema)
    assert config_problems({"a": 1}, schema) == ["spec.config.a: must be of type string"]


@pytest.mark.parametrize("keyword", ["$anchor", "$dynamicAnchor"])
def test_anchors_are_refused(keyword: str) -> None:
    refused({"$defs": {"a": {keyword: "x"}}}, keyword, "#/$defs/")


def test_a_schema_has_a_limit_of_nesting() -> None:
    def nested(levels: int) -> dict[str, Any]:
        return {"properties": {"a": nested(levels - 1)}} if levels > 1 else {}

    accepted(nested(MAX_SCHEMA_DEPTH))
    refused(nested(MAX_SCHEMA_DEPTH + 1), f"deeper than {MAX_SCHEMA_DEPTH}")
    refused(nested(300), f"deeper than {MAX_SCHEMA_DEPTH}")


def test_a_schema_has_a_limit_of_bytes() -> None:
    def described(size: int) -> dict[str, Any]:
        empty = len(json.dumps({"description": ""}))
        return {"description": "x" * (size - empty)}

    accepted(described(MAX_SCHEMA_BYTES))
    refused(described(MAX_SCHEMA_BYTES + 1), "262,145 bytes", "at most 262,144")


def test_a_config_has_a_limit_of_bytes() -> None:
    def config(size: int) -> dict[str, Any]:
        return {"a": "x" * (size - len(json.dumps({"a": ""})))}

    assert config_problems(config(MAX_CONFIG_BYTES), TEXT) == []
    (problem,) = config_problems(config(MAX_CONFIG_BYTES + 1), TEXT)
    assert problem == "spec.config: Invalid value: has 65,537 bytes; at most 65,536 are accepted: shorten it"


def test_the_number_and_the_length_of_problems_have_limits() -> None:
    schema = {"type": "object", "additionalProperties": {"enum": ["x" * 2_000]}}
    found = config_problems({f"k{index}": 1 for index in range(100)}, schema)
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1] == "spec.config: has more problems; correct these first"
    assert all(len(problem) < 600 for problem in found)


def test_a_definition_that_an_older_release_admitted_is_checked_too() -> None:
    (problem,) = config_problems({}, {"properties": {"a": {"$ref": "http://example.com/"}}})
    assert problem.startswith("spec.config: cannot be checked, because the connector's configSchema is refused: ")


def test_problems_name_the_field_and_the_remedy() -> None:
    schema = {
        "type": "object",
        "required": ["host", "user"],
        "additionalProperties": False,
        "properties": {"host": {"type": "string"}, "user": {}, "port": {"type": ["integer", "null"]}},
    }
    assert config_problems({"port": "x", "prot": 1}, schema) == [
        "spec.config: add 'host', 'user': the connector requires it",
        "spec.config: Additional properties are not allowed ('prot' was unexpected); the connector knows: host, port, user",
        "spec.config.port: must be of type integer or null",
    ]
