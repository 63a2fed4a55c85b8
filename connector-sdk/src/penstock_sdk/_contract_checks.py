"""Private: checks of the values that a connector's methods return, with the same messages in a pod, on a laptop and in the suite.

Python does not check the types that the contract declares. Without these checks, a mistake such as `yield rows` instead of
`yield Batch(rows)` appears far from its cause, or changes data silently. Each message names the stream, the field and the
remedy. All checks raise DefectError, because the connector's code has to change, not the source or the connection.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from penstock_sdk.contract import Batch, Cursor, CursorCare, Mode, Op, Stream
from penstock_sdk.errors import ConnectorError, DefectError

log = logging.getLogger("penstock")

MODES: tuple[str, ...] = get_args(Mode)
OPS: tuple[str, ...] = get_args(Op)
CURSOR_CARE: tuple[str, ...] = get_args(CursorCare)
JSON_TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")
LONGEST_NAME = 253
MOST_NESTED = 100
"""Levels of objects and arrays that a cursor or a schema may have. Strict JSON readers refuse more."""
MAPS_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
LISTS_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
OPEN_SCHEMA = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "patternProperties", "if")
"""Keywords with which a record may have fields that `properties` does not list."""


def checked_streams(returned: object) -> list[Stream]:
    """Return the streams of `discover()` as a list. Raises DefectError that names the stream and the field."""
    streams = [_checked_stream(stream, place) for place, stream in enumerate(_iterable(returned))]
    for problem in filter(None, _doubles(streams)):
        raise DefectError(problem)
    return streams


def offered_streams(returned: object, selected: frozenset[str] = frozenset()) -> list[Stream]:
    """Return the streams of `discover()`. A stream that breaks the contract is unavailable: it fails only if it is selected.

    `selected` are the streams that the connection selects; empty if it selects all. After all of them have been yielded, an
    error of the generator is only logged. Raises DefectError for a value that is not a list of streams.
    """
    streams = list[Stream]()
    try:
        for place, stream in enumerate(_iterable(returned)):
            streams.append(_sound_stream(stream, place))
    except Exception as error:
        if not selected or not selected <= {name for stream in streams for name in (stream.name, stream.identity)}:
            raise
        message = error.message if isinstance(error, ConnectorError) else type(error).__name__
        log.warning("discover() ended early, after it returned all selected streams: %s", message)
    sound: dict[str, Stream] = {}
    for stream, problem in zip(streams, _doubles(streams), strict=True):
        sound.setdefault(stream.identity, _unavailable(stream.name, stream.id, problem) if problem else stream)
    return list(sound.values())


def _iterable(returned: object) -> Iterable[Any]:
    if isinstance(returned, str | bytes | Mapping | Stream) or not isinstance(returned, Iterable):
        message = f"discover() returned {_kind(returned)}; return a list of Stream, or yield each Stream"
        raise DefectError(message)
    return returned


def _doubles(streams: Sequence[Stream]) -> list[str]:
    """Return, for each stream, the problem if it shares its name or id with another one, or nothing."""
    names, ids = Counter(stream.name for stream in streams), Counter(stream.identity for stream in streams)
    said = "discover() returned two streams with the {what} {shared!r}; each {what} must be unique"
    return [
        said.format(what="name", shared=stream.name)
        if names[stream.name] > 1
        else said.format(what="id", shared=stream.identity)
        if ids[stream.identity] > 1
        else ""
        for stream in streams
    ]


def _sound_stream(stream: Any, place: int) -> Stream:
    """Return the stream, or an unavailable stream instead of it."""
    try:
        return _checked_stream(stream, place)
    except DefectError as error:
        name, id_ = getattr(stream, "name", None), getattr(stream, "id", None)
        is_named = isinstance(stream, Stream) and not any(_name_problems("name", name))
        is_known = is_named and id_ is not None and not any(_name_problems("id", id_))
        return _unavailable(str(name) if is_named else f"(at place {place})", id_ if is_known else None, error.message)


def _unavailable(name: str, id_: str | None, problem: str) -> Stream:
    return Stream(
        name=name,
        id=id_,
        schema={"type": "object"},
        modes=("full", "incremental"),
        unavailable=DefectError(f"{problem} (a defect of the connector: tell its author)"),
    )


def checked_batches(returned: object, stream: str) -> Iterator[Batch]:
    """Yield the batches of `read()`. Raises DefectError for any other value."""
    if isinstance(returned, str | bytes | Mapping | Batch) or not isinstance(returned, Iterable):
        remedy = "write read() as a generator that yields Batch(records, cursor=...)"
        message = f"stream {stream!r}: read() returned {_kind(returned)}; {remedy}"
        raise DefectError(message)
    for batch in returned:
        yield checked_batch(batch, stream)


def checked_batch(batch: object, stream: str) -> Batch:
    """Return the batch. Raises DefectError if it, its records, its op or its cursor is not valid."""
    if not isinstance(batch, Batch):
        message = f"stream {stream!r}: read() yielded {_kind(batch)}; yield Batch(records, cursor=...)"
        raise DefectError(message)
    check_records(batch.records, stream)
    check_op(batch.op, stream)
    if batch.cursor is not None:
        check_cursor(batch.cursor, stream)
    return batch


def check_records(records: object, stream: str) -> None:
    """Raise DefectError unless the records have one of the three forms."""
    if isinstance(records, bytes) or hasattr(records, "to_pylist"):
        return
    if isinstance(records, Sequence) and not isinstance(records, str | bytearray | memoryview):
        return
    remedy = {
        "str": "encode the page: text.encode()",
        "bytearray": "pass bytes(page)",
        "memoryview": "pass bytes(page)",
        "dict": "pass a list of dicts, also for one record",
        "generator": "pass list(records)",
    }.get(type(records).__name__, "pass a list of dicts, the bytes of a JSON page, or an Arrow batch")
    message = f"stream {stream!r}: the records of a Batch are {_kind(records)}; {remedy}"
    raise DefectError(message)


def check_op(op: object, stream: str) -> None:
    """Raise DefectError unless `op` is one that the contract knows."""
    if not isinstance(op, str) or op not in OPS:
        shown = repr(op) if isinstance(op, str) else _kind(op)
        message = f"stream {stream!r}: a Batch has the op {shown}; it must be {_choice(OPS)}"
        raise DefectError(message)


def check_cursor(cursor: Cursor, stream: str) -> None:
    """Raise DefectError unless the cursor is plain JSON that jsonb can store, so that it is read back unchanged."""
    problem = _not_json(cursor, "cursor", 0)
    if problem:
        message = f"stream {stream!r}: {problem}. A cursor must be JSON: use text for dates, decimals and bytes"
        raise DefectError(message)


def _checked_stream(stream: Any, place: int) -> Stream:
    if not isinstance(stream, Stream):
        message = f"discover() returned {_kind(stream)} at place {place}; each must be a Stream(name=..., schema=...)"
        raise DefectError(message)
    name = stream.name
    if not isinstance(name, str) or not name:
        shown = "an empty text" if name == "" else _kind(name)
        message = f"discover() returned a stream at place {place} whose name is {shown}; it must be a text"
        raise DefectError(message)
    for problem in _stream_problems(stream):
        message = f"stream {name!r}: {problem}"
        raise DefectError(message)
    return stream


def _stream_problems(stream: Stream) -> Iterator[str]:
    """Yield the problems. Only the first is reported, and later checks rely on earlier ones."""
    yield from _name_problems("name", stream.name)
    if stream.id is not None:
        yield from _name_problems("id", stream.id)
    yield from _names_problems("primary_key", stream.primary_key)
    yield from _names_problems("pii", stream.pii)
    yield from _words_problems("modes", stream.modes, MODES)
    if not stream.modes:
        yield f"modes is empty; it must name {_choice(MODES)}"
    yield from _words_problems("cursor_care", stream.cursor_care, CURSOR_CARE)
    if stream.cursor_field is not None and (not isinstance(stream.cursor_field, str) or not stream.cursor_field):
        yield f"cursor_field is {_kind(stream.cursor_field)}; it must be the name of one field, or None"
    yield from _flag_problems(stream)
    if stream.unavailable is not None and not isinstance(stream.unavailable, ConnectorError):
        yield f"unavailable is {_kind(stream.unavailable)}; it must be a ConnectorError, or None"
    if not isinstance(stream.only_full, str):
        yield f"only_full is {_kind(stream.only_full)}; it must be a text"
    suggested = stream.pii_suggested
    if not isinstance(suggested, Mapping) or not all(
        isinstance(text, str) for pair in suggested.items() for text in pair
    ):
        yield "pii_suggested must be a mapping of field names to classes"
    yield from _schema_problems(stream)


def _flag_problems(stream: Stream) -> Iterator[str]:
    for field in ("partitioned", "windows"):
        if not isinstance(getattr(stream, field), bool):
            yield f"{field} is {_kind(getattr(stream, field))}; it must be True or False"
    for field in ("partition", "window"):
        if getattr(stream, field) is not None:
            yield f"{field} is {_kind(getattr(stream, field))}; leave it out: the runtime sets it for read()"


def _name_problems(field: str, name: Any) -> Iterator[str]:
    if not isinstance(name, str) or not name:
        yield f"{field} is {_kind(name)}; it must be a text that is not empty"
    elif len(name) > LONGEST_NAME:
        yield f"{field} has {len(name)} characters; {LONGEST_NAME} are allowed"
    elif "\0" in name or _has_surrogate(name):
        yield f"{field} has a NUL character or half a surrogate pair, which neither Postgres nor UTF-8 can store"


def _names_problems(field: str, names: Any) -> Iterator[str]:
    if isinstance(names, str):
        yield f"{field} is the text {names!r}; it must be a tuple of names, such as ({names!r},)"
    elif not isinstance(names, list | tuple):
        yield f"{field} is {_kind(names)}; it must be a tuple of names"
    else:
        for place, name in enumerate(names):
            yield from _name_problems(f"{field}[{place}]", name)
        if all(isinstance(name, str) for name in names) and len(set(names)) < len(names):
            yield f"{field} names a field twice"


def _words_problems(field: str, words: Any, known: Sequence[str]) -> Iterator[str]:
    if isinstance(words, str):
        yield f"{field} is the text {words!r}; it must be a tuple, such as ({words!r},)"
    elif not isinstance(words, list | tuple):
        yield f"{field} is {_kind(words)}; it must be a tuple of {_choice(known)}"
    else:
        for word in words:
            if not isinstance(word, str) or word not in known:
                shown = repr(word) if isinstance(word, str) else _kind(word)
                yield f"{field} has {shown}; it must be {_choice(known)}"


def _schema_problems(stream: Stream) -> Iterator[str]:
    schema = stream.schema
    if not isinstance(schema, dict):
        yield f"schema is {_kind(schema)}; it must be a dict: the JSON Schema of one record"
        return
    problem = _not_json(schema, "schema", 0)
    if problem:
        yield f"{problem}; a schema must be JSON"
        return
    declared = schema.get("type", "object")
    if declared != "object" and not (isinstance(declared, list) and "object" in declared):
        yield f"schema has the type {declared!r}; a record is an object"
    yield from _node_problems(schema, "schema")
    fields = schema.get("properties")
    if not isinstance(fields, dict) or not fields or any(keyword in schema for keyword in OPEN_SCHEMA):
        return
    for name in stream.primary_key:
        if name not in fields:
            yield f"primary_key has the field {name!r}, which is not in the schema's properties"
    # A cursor field that is not in the schema is not a defect: the platform's cursor safety and the suite report it.


def _node_problems(node: Any, path: str) -> Iterator[str]:
    """Yield the problems of a schema that is JSON: an unknown type, or a keyword with a value of a wrong type."""
    if isinstance(node, bool):
        return
    if not isinstance(node, dict):
        yield f"{path} is {_kind(node)}; it must be a JSON Schema: an object, true or false"
        return
    declared = node.get("type")
    for word in declared if isinstance(declared, list) else [declared] if "type" in node else []:
        if word not in JSON_TYPES:
            yield f"{path} has the type {word!r}, which JSON Schema does not know; it must be {_choice(JSON_TYPES)}"
    if "required" in node and not _is_names(node["required"]):
        yield f"{path}.required must be a list of names"
    for keyword in MAPS_OF_SCHEMAS:
        if keyword in node and not isinstance(node[keyword], dict):
            yield f"{path}.{keyword} must be an object"
    for child_path, child in _children(node, path):
        yield from _node_problems(child, child_path)


def _children(node: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Yield the schemas within a schema, each with its path."""
    for keyword in MAPS_OF_SCHEMAS:
        children = node.get(keyword)
        for name, child in children.items() if isinstance(children, dict) else ():
            yield f"{path}.{keyword}.{name}", child
    for keyword in LISTS_OF_SCHEMAS:
        children = node.get(keyword)
        for place, child in enumerate(children) if isinstance(children, list) else ():
            yield f"{path}.{keyword}[{place}]", child
    for keyword in SCHEMAS:
        if keyword in node and not isinstance(node[keyword], list):
            yield f"{path}.{keyword}", node[keyword]


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _not_json(value: Any, path: str, depth: int) -> str:
    """Return which part of a value is not JSON that Postgres can store, or nothing. Never shows the value."""
    if not isinstance(value, dict | list | tuple):
        return _not_scalar(value, path)
    if depth >= MOST_NESTED:
        return f"{path[:80]}... is nested deeper than {MOST_NESTED} levels"
    if isinstance(value, dict):
        if any(not isinstance(key, str) or _not_scalar(key, "") for key in value):
            return f"{path} has a key that is not a text, or one with NUL or half a surrogate pair"
        children = [(f"{path}.{key}", item) for key, item in value.items()]
    else:
        children = [(f"{path}[{place}]", item) for place, item in enumerate(value)]
    return next(filter(None, (_not_json(item, child, depth + 1) for child, item in children)), "")


def _not_scalar(value: Any, path: str) -> str:
    if isinstance(value, str):
        return f"{path} has a NUL character or half a surrogate pair" if "\0" in value or _has_surrogate(value) else ""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} is NaN or infinite"
    return "" if value is None or isinstance(value, bool | int | float) else f"{path} is {_kind(value)}"


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _kind(value: Any) -> str:
    """Return the type of a value, never the value."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"of type {type(value).__name__}"


def _choice(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
