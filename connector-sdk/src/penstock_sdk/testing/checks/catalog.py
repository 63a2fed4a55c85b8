"""What the connector declares, compared with what it does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import jsonschema
import msgspec

from penstock_sdk import protocol as wire
from penstock_sdk.json_types import JsonObject, properties_of
from penstock_sdk.manifest import config_problems, manifest_problems
from penstock_sdk.testing.checks.model import Check
from penstock_sdk.testing.harness import Failed, Harness, NotApplicable, identity

SAMPLE = 2000
FORMATS = jsonschema.FormatChecker(["date", "email", "ipv4", "ipv6", "uuid"])


@FORMATS.checks("date-time", raises=ValueError)
def _is_moment(value: object) -> bool:
    """Return True for an RFC 3339 timestamp: a date, a time and an offset."""
    if not isinstance(value, str):
        return True
    return datetime.fromisoformat(value).tzinfo is not None and value[10:11] in "Tt"


def manifest(harness: Harness) -> str:
    """Compare the manifest with the artifact, the class and the catalog."""
    document = harness.manifest
    wrong = manifest_problems(document)
    wrong = wrong or [*_of_artifact(harness), *_of_class(harness)] or list(_of_catalog(harness))
    if wrong:
        raise Failed("; ".join(wrong))
    return (
        f"{harness.identity.name}-{harness.identity.method} {harness.identity.version}: {len(harness.catalog)} streams"
    )


def _of_artifact(harness: Harness) -> Iterator[str]:
    manifest, target = harness.manifest_fields, harness.target
    artifact = f"{manifest.name}-{manifest.method}"
    if artifact != target.artifact:
        yield f"the manifest is for {artifact}, and the entry point is {target.artifact}"
    if harness.version not in (None, manifest.version):
        yield f"version: the manifest has {manifest.version}, the package has {harness.version}"
    yield from config_problems(target.config, manifest.config_schema, "config")


def _of_class(harness: Harness) -> Iterator[str]:
    """Yield configs and credentials that only the manifest or only the class has: they would be refused or ignored."""
    config_type, credentials_type = harness.connector.argument_types()
    schema = harness.manifest_fields.config_schema
    required = schema.get("required")
    credentials = {credential.name: credential.required for credential in harness.manifest_fields.credentials()}
    yield from _keys(
        "configSchema", set(properties_of(schema)), config_type, set(required if isinstance(required, list) else ())
    )
    yield from _keys(
        "authentication", set(credentials), credentials_type, {name for name, needed in credentials.items() if needed}
    )


def _keys(where: str, declared: set[str], type_: type[Any], required: set[str]) -> Iterator[str]:
    if not (isinstance(type_, type) and issubclass(type_, msgspec.Struct)):
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
    for name in sorted(fields.keys() - declared):
        yield f"{where}: {type_.__name__} reads {name!r}, which the manifest does not declare"
    for name in sorted(declared - fields.keys()):
        yield f"{where}: the manifest declares {name!r}, which {type_.__name__} does not read"
    for name in sorted(name for name, field in fields.items() if field.required and name in declared - required):
        yield f"{where}: {type_.__name__} requires {name!r}, which the manifest declares as optional"


def _of_catalog(harness: Harness) -> Iterator[str]:
    manifest = harness.manifest_fields
    capabilities = manifest.capabilities
    allowed = set(capabilities.modes)
    for stream in harness.catalog:
        for mode in sorted(set(stream.modes) - allowed):
            yield f"capabilities.modes: stream {stream.name!r} offers {mode}, which the manifest does not declare"
        if stream.partitioned and not capabilities.partitions:
            yield f"capabilities.partitions: stream {stream.name!r} offers partitions, which the manifest does not declare"
        if stream.windows and not capabilities.windows:
            yield f"capabilities.windows: stream {stream.name!r} offers windows, which the manifest does not declare"
        if stream.pii and manifest.compliance.pii == "none":
            yield f"compliance.pii: none, but stream {stream.name!r} declares {', '.join(stream.pii)}"
    if capabilities.discovery == "static":
        yield from _of_static(harness)


def _of_static(harness: Harness) -> Iterator[str]:
    declared = {
        stream.name: (sorted(stream.modes), stream.primary_key, stream.cursor_field)
        for stream in harness.manifest_fields.streams.known
    }
    offered = {
        stream.name: (sorted(stream.modes), list(stream.primary_key), stream.cursor_field)
        for stream in harness.first_run().api.offered
    }
    for name in sorted(declared.keys() ^ offered.keys()):
        yield f"streams.list: {name!r} is in {'the manifest' if name in declared else 'discover()'} only"
    for name in sorted(declared.keys() & offered.keys()):
        if declared[name] != offered[name]:
            yield f"streams.list: {name!r} is {declared[name]} in the manifest and {offered[name]} in discover()"


def catalog(harness: Harness) -> str:
    """Call discover() in two processes."""
    mode = harness.modes[0]
    first, second = harness.baseline(mode).api.offered, harness.second_baseline(mode).api.offered
    doubles = [name for name, count in Counter(stream.name for stream in first).items() if count > 1]
    if doubles:
        raise Failed(f"discover() returns the stream {doubles[0]!r} more than once")
    if [stream.name for stream in first] != [stream.name for stream in second]:
        raise Failed(f"two discoveries differ: {_names(first)}, then {_names(second)}")
    for one, other in zip(first, second, strict=True):
        changed = [name for name in type(one).model_fields if getattr(one, name) != getattr(other, name)]
        if changed:
            raise Failed(
                f"two discoveries differ: stream {one.name!r}: {', '.join(changed).replace('schema_', 'schema')}"
            )
    return f"{len(first)} streams, the same twice"


def _names(streams: list[wire.DiscoveredStream]) -> str:
    return f"[{', '.join(stream.name for stream in streams)}]"


def schema(harness: Harness) -> str:
    """Check records against the schema of their stream."""
    checked = 0
    for stream in harness.catalog:
        known = properties_of(stream.schema_)
        for name in stream.primary_key:
            if name not in known:
                raise Failed(f"stream {stream.name!r}: {name!r} is part of its key, but not in its schema")
        for mode in stream.modes:
            checked += _hold(
                stream, _sample(harness.baseline(mode).records(stream.name, "upsert"))
            )  # a deleted record needs only its key
    return f"{checked} records match"


def _sample(records: list[JsonObject]) -> list[JsonObject]:
    step = max(1, -(-len(records) // SAMPLE))
    return records[::step]


def _hold(stream: wire.DiscoveredStream, records: list[JsonObject]) -> int:
    try:
        jsonschema.Draft202012Validator.check_schema(stream.schema_)
    except jsonschema.SchemaError as error:
        raise Failed(f"stream {stream.name!r}: its schema is not a JSON Schema (2020-12): {error.message}") from None
    validator = jsonschema.Draft202012Validator(stream.schema_, format_checker=FORMATS)
    open_ended = "additionalProperties" in stream.schema_ or "patternProperties" in stream.schema_
    known = properties_of(stream.schema_).keys()
    for record in records:
        problem = next(iter(validator.iter_errors(record)), None)
        where = f"stream {stream.name!r}, record {identity(record, stream.primary_key)}"
        if problem:
            path = "".join(f".{part}" for part in problem.absolute_path) or "(the record)"
            raise Failed(f"{where}: {path}: {problem.message[:200]}")
        undeclared = sorted(record.keys() - known)
        if undeclared and not open_ended:
            raise Failed(f"{where}: the field {undeclared[0]!r} is not in the schema")
    return len(records)


def keys(harness: Harness) -> str:
    """Count the records by key."""
    with_keys = [stream for stream in harness.catalog if stream.primary_key]
    if not with_keys:
        raise NotApplicable("no stream declares a primary key")
    for stream in with_keys:
        for mode in stream.modes:
            records = harness.baseline(mode).records(stream.name)
            absent = [row for row in records if any(row.get(name) is None for name in stream.primary_key)]
            if absent:
                raise Failed(f"stream {stream.name!r}, {mode}: {len(absent)} records have no value of their key")
            upserts = harness.baseline(mode).records(stream.name, "upsert")
            counted = Counter(identity(row, stream.primary_key) for row in upserts)
            doubles = [(key, count) for key, count in counted.items() if count > 1]
            if doubles:
                key, count = doubles[0]
                raise Failed(
                    f"stream {stream.name!r}, {mode}: {len(doubles)} keys occur more than once, such as {key} {count} times"
                )
    return f"{len(with_keys)} streams, each key occurs once"


CHECKS = (
    Check(
        "manifest",
        "The manifest is valid and agrees with the artifact, its classes and its catalog.",
        "Correct connector.yaml or the code; the platform relies on the manifest.",
        manifest,
    ),
    Check(
        "catalog",
        "discover() returns the same streams with the same schemas each time, each name once.",
        "Remove everything from discover() that changes from call to call: times, counts, the order of a set.",
        catalog,
    ),
    Check(
        "schema",
        "Records match the schema of their stream and have no other fields.",
        "Correct the schema in discover(), or convert the values in read().",
        schema,
    ),
    Check(
        "keys",
        "Every record has the primary key, and the key identifies it.",
        "Declare the fields that identify a record, or no key; do not yield a record twice in one read.",
        keys,
    ),
)
