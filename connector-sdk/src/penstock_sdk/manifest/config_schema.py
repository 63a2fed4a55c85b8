"""The `configSchema` of a manifest: its limits, and the check of a connection's config by it.

Authors send schemas and tenants send configs, and the control plane evaluates both, so the cost of an evaluation has a bound.
Regular expressions run in an engine that needs linear time. A schema has at most `MAX_SCHEMA_NODES` subschemas once its
references are written out, and it may refer neither to itself nor to other documents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import jsonschema
import jsonschema_rs

from penstock_sdk.json_types import JsonObject, JsonSchema, JsonValue

MAX_SCHEMA_BYTES: Final = 256 * 1024
MAX_SCHEMA_DEPTH: Final = 32
MAX_SCHEMA_NODES: Final = 2_000
MAX_PATTERN_CHARACTERS: Final = 1_000
PATTERN_PROGRAM_BYTES: Final = 1024 * 1024
"""The memory of a compiled regular expression. A repetition of a repetition takes more than its text shows."""
MAX_CONFIG_BYTES: Final = 64 * 1024
MAX_PROBLEMS: Final = 20
MAX_PROBLEM_CHARACTERS: Final = 500
CACHED_VALIDATORS: Final = 200
PATTERNS = jsonschema_rs.RegexOptions(size_limit=PATTERN_PROGRAM_BYTES, dfa_size_limit=PATTERN_PROGRAM_BYTES)
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
DOCUMENTS = ("$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor")


class _Refused(Exception):  # noqa: N818 - it carries the problem
    """A schema is beyond a limit; the message names the limit and the remedy."""


def schema_problems(schema: JsonValue, path: str) -> list[str]:
    """Return the problems of a configSchema, each with its path; empty if it can be evaluated within the limits."""
    if not isinstance(schema, dict):
        return [f"{path}: Invalid value: must be a JSON Schema, an object"]
    try:
        _check_size(schema)
        _check_depth(schema)
        jsonschema.Draft202012Validator.check_schema(schema)
        _check_node_count(schema)
        _check_patterns(schema)
        jsonschema_rs.Draft202012Validator(schema, pattern_options=PATTERNS, offline=True)
    except _Refused as refused:
        return [f"{path}: Invalid value: {refused}"]
    except jsonschema.SchemaError as error:
        where = "".join(f".{part}" for part in error.absolute_path)
        return [f"{path}{where}: Invalid value: not a JSON Schema (2020-12): {_short(error.message)}"]
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        return [f"{path}: Invalid value: not a JSON Schema (2020-12): {_short(str(error))}"]
    except (ValueError, TypeError, RecursionError):
        return [f"{path}: Invalid value: holds a value that JSON does not have, or is nested too deep"]
    return []


def config_problems(config: JsonObject, schema: JsonSchema, path: str = "spec.config") -> list[str]:
    """Return the problems of a connection's config by the connector's schema, each with its path and a remedy."""
    try:
        size = len(json.dumps(config, ensure_ascii=False).encode())
    except (ValueError, TypeError, RecursionError):
        return [f"{path}: Invalid value: holds a value that JSON does not have, or is nested too deep"]
    if size > MAX_CONFIG_BYTES:
        return [f"{path}: Invalid value: has {size:,} bytes; at most {MAX_CONFIG_BYTES:,} are accepted: shorten it"]
    try:
        validator = _validator(json.dumps(schema))
    except (
        jsonschema_rs.ValidationError,
        jsonschema_rs.ReferencingError,
        _Refused,
        ValueError,
        RecursionError,
    ) as error:
        return [f"{path}: cannot be checked, because the connector's configSchema is refused: {_short(str(error))}"]
    errors = sorted(validator.iter_errors(config), key=lambda error: [str(part) for part in error.instance_path])
    return list(_problems(errors, schema, path))


@lru_cache(maxsize=CACHED_VALIDATORS)
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    """Return the validator of a schema. A definition that was admitted by an older release is checked here as well."""
    document = json.loads(schema)
    _check_depth(document)
    _check_node_count(document)
    return jsonschema_rs.Draft202012Validator(document, pattern_options=PATTERNS, offline=True)


def _problems(errors: list[jsonschema_rs.ValidationError], schema: JsonSchema, path: str) -> Iterator[str]:
    required: dict[str, list[str]] = {}
    for error in errors:
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
            required.setdefault(_place(error, path), []).append(repr(error.kind.property))
    shown = 0
    for error in errors:
        place = _place(error, path)
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
            names = required.pop(place, None)
            if names is None:
                continue
            advice = f"add {', '.join(names)}: the connector requires it"
        else:
            advice = _advice(error, schema)
        if shown == MAX_PROBLEMS:
            yield f"{path}: has more problems; correct these first"
            return
        shown += 1
        yield f"{place}: {_short(advice)}"


def _place(error: jsonschema_rs.ValidationError, path: str) -> str:
    return f"{path}{''.join(f'.{part}' for part in error.instance_path)}"


def _advice(error: jsonschema_rs.ValidationError, schema: JsonSchema) -> str:
    kinds = jsonschema_rs.ValidationErrorKind
    if isinstance(error.kind, kinds.AdditionalProperties):
        parent: Any = schema
        for part in error.schema_path[:-1]:
            parent = _step(parent, part)
        known = ", ".join(sorted(parent.get("properties", {}))) if isinstance(parent, dict) else ""
        return f"{error.message}; the connector knows: {known}"
    if isinstance(error.kind, kinds.Type):
        return f"must be of type {' or '.join(sorted(error.kind.types))}"
    return error.message


def _step(node: Any, part: str | int) -> Any:
    try:
        return node[part]
    except (LookupError, TypeError):  # the path leads through a reference
        return {}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_PROBLEM_CHARACTERS else f"{line[:MAX_PROBLEM_CHARACTERS]} …"


def _check_size(schema: Any) -> None:
    size = len(json.dumps(schema))
    if size > MAX_SCHEMA_BYTES:
        raise _Refused(f"has {size:,} bytes; at most {MAX_SCHEMA_BYTES:,} are accepted")


def _check_depth(schema: Any) -> None:
    level, depth = [schema], 0
    while level:
        depth += 1
        if depth > MAX_SCHEMA_DEPTH * 2:  # a keyword such as `properties` is a level of its own
            raise _Refused(f"is nested deeper than {MAX_SCHEMA_DEPTH} subschemas; flatten it")
        level = [inner for node in level for inner in _inner(node)]


def _inner(node: Any) -> list[Any]:
    return list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []


def _check_node_count(schema: Any) -> None:
    """Refuse a schema whose evaluation visits too many subschemas, with its references written out."""
    _NodeCount(schema).of(schema)


class _NodeCount:
    """Counts subschemas with their references written out."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._targets: dict[str, int | None] = {}

    def of(self, node: Any) -> int:
        """Return the count of a node. Raises _Refused if it is too large."""
        count = 1
        if isinstance(node, dict):
            self._check_names(node)
            references = [node[keyword] for keyword in REFERENCES if isinstance(node.get(keyword), str)]
            count += sum(self._of_target(reference) for reference in references)
        for inner in _inner(node):
            count += self.of(inner) if isinstance(inner, (dict, list)) else 0
        if count > MAX_SCHEMA_NODES:
            raise _Refused(
                f"has more than {MAX_SCHEMA_NODES:,} subschemas with its references written out; simplify it"
            )
        return count

    def _check_names(self, node: JsonObject) -> None:
        wrong = next((keyword for keyword in DOCUMENTS if isinstance(node.get(keyword), str)), None)
        if wrong and (wrong != "$id" or node is not self._schema):
            raise _Refused(f"uses {wrong}; refer to #/$defs/… instead")

    def _of_target(self, reference: str) -> int:
        if not reference.startswith("#"):
            raise _Refused(f"{reference[:100]!r} refers to another document; put it into $defs, and refer to #/$defs/…")
        if reference not in self._targets:
            self._targets[reference] = None
            self._targets[reference] = self.of(_target(self._schema, reference))
        count = self._targets[reference]
        if count is None:
            raise _Refused(f"{reference[:100]!r} refers to itself; write the levels that a config needs")
        return count


def _target(schema: Any, reference: str) -> Any:
    node = schema
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~").replace("%25", "%")
        try:
            node = node[int(name)] if isinstance(node, list) else node[name]
        except (LookupError, ValueError, TypeError):
            raise _Refused(f"{reference[:100]!r} refers to nothing; refer to an entry of $defs") from None
    return node


def _check_patterns(node: Any) -> None:
    """Refuse each regular expression that is too long, or that an engine with linear time cannot evaluate."""
    if isinstance(node, dict):
        pattern, keyed = node.get("pattern"), node.get("patternProperties")
        for found in [*([pattern] if isinstance(pattern, str) else []), *(keyed if isinstance(keyed, dict) else ())]:
            _check_pattern(found)
    for inner in _inner(node):
        _check_patterns(inner)


def _check_pattern(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise _Refused(f"a pattern has {len(pattern):,} characters; at most {MAX_PATTERN_CHARACTERS:,} are accepted")
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=PATTERNS, offline=True)
    except jsonschema_rs.ValidationError:
        raise _Refused(
            f"the pattern {pattern[:200]!r} cannot be evaluated in linear time, or is not a regular expression:"
            " write it without lookahead, lookbehind and backreferences, and without large nested repetitions"
        ) from None
