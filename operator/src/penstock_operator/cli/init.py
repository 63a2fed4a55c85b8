"""`penstock init`: a folder to start from, for a connector that is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml
from penstock_sdk.json_types import JsonObject, JsonSchema, JsonValue, list_at, properties_of, types_of
from penstock_sdk.manifest import Manifest

from penstock_operator.cli.definition import definition_yaml, installed_connectors, installed_manifest
from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.cli.paths import path_word
from penstock_operator.resources.models import API_VERSION, GROUP

EXAMPLES = {
    "faker-generate": ('{"records": 1000, "seed": 7}', "people"),
    "postgres-sql": (
        '{"host": "db.example.com", "port": 5432, "database": "shop", "sslmode": "require"}',
        "public.orders",
    ),
    "files-object": (
        (
            '{"endpoint": "https://s3.example.com", "region": "us-east-1", "streams": [{"name": "orders", "paths":'
            ' ["s3://my-bucket/orders/**/*.csv"], "format": "csv"}]}'
        ),
        "orders",
    ),
}
"""Config and a stream to start from, by connector. For any other connector, the required fields get values to replace."""
KEYS = {"postgres-sql": ("username", "password"), "files-object": ("accessKeyId", "secretAccessKey")}


def init(
    directory: Annotated[
        Path,
        typer.Argument(
            help="The folder to write; it is made where it is not there.", parser=path_word, metavar="DIRECTORY"
        ),
    ] = Path(),
    connector: Annotated[
        str | None,
        typer.Option(
            "--connector",
            help="An installed connector: faker-generate, files-object or postgres-sql. Without it, the one that the folder"
            " is named after, or else faker-generate, which needs no source.",
        ),
    ] = None,
) -> None:
    """Write a folder to start from: the connector's definition, a connection, and a Secret where it takes credentials.

    Example: penstock init folder --connector postgres-sql
    """
    connector = connector or _named_after(directory)
    manifest = installed_manifest(connector)
    files = starting_files(connector, manifest_model(manifest), definition_yaml(manifest))
    _write(directory, files)
    for name in files:
        typer.echo(f"wrote {directory / name}")
    steps = [f"penstock validate {directory}", f"penstock up {directory} --once"]
    if connector == "faker-generate":
        steps.append(f"penstock bronze head team-a/{manifest['name']} -n 1")
    if "secret.yaml" in files:
        steps.insert(0, f"put your source and credentials into {directory / 'connection.yaml'} and secret.yaml")
    for number, step in enumerate(steps, 1):
        typer.echo(f"{number}. {step}")


def _named_after(directory: Path) -> str:
    """Return the connector that a folder is named after, as in `penstock init postgres-sql`."""
    return directory.name if directory.name in installed_connectors() else "faker-generate"


def manifest_model(manifest: object) -> Manifest:
    """Return an installed connector's manifest."""
    return Manifest.model_validate(manifest)


def starting_files(connector: str, manifest: Manifest, definition: str) -> dict[str, str]:
    """Return the files to start from by name."""
    keys = KEYS.get(connector) or tuple(manifest.credentials())
    files = {"definition.yaml": definition, "connection.yaml": _connection(connector, manifest, keys)}
    if keys:
        files["secret.yaml"] = _secret(connector, keys)
    return files


def _connection(connector: str, manifest: Manifest, keys: tuple[str, ...]) -> str:
    example, stream = EXAMPLES.get(connector) or ("", "")
    config = json.loads(example) if example else required_config(manifest.config_schema)
    mode = manifest.capabilities.modes[0] if not stream or connector == "postgres-sql" else "incremental"
    streams = f"  streams: [{{name: {stream}, mode: {mode}}}]" if stream else "  # streams: [{name: ..., mode: full}]"
    lines = [
        "# A connection: what to read, how, and when. `penstock validate` checks it against definition.yaml.",
        f"apiVersion: {GROUP}/{API_VERSION}",
        "kind: TenantConnection",
        f"metadata: {{name: {manifest.name}, namespace: team-a}}",
        "spec:",
        f'  connector: {{name: {manifest.name}, method: {manifest.method}, version: "^{_minor(manifest.version)}"}}',
        *([f"  secretRef: {{name: {manifest.name}-credentials}}   # secret.yaml"] if keys else []),
        "  config:",
        *("    " + line for line in yaml.safe_dump(config, sort_keys=False).splitlines()),
        streams,
        '  # schedule: "0 * * * *"   # without one, a run is started by `penstock runs start`',
    ]
    return "\n".join(lines) + "\n"


def required_config(schema: JsonSchema) -> JsonObject:
    """Return the config that a schema requires: each field has its default or first choice, else a value to replace."""
    fields = properties_of(schema)
    return {str(name): _placeholder(fields.get(str(name), {})) for name in list_at(schema, "required")}


def _placeholder(schema: JsonSchema) -> JsonValue:
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if list_at(schema, key):
            return list_at(schema, key)[0]
    return _of_type(schema)


def _of_type(schema: JsonSchema) -> JsonValue:
    kind = next(iter(types_of(schema)), "string")
    if kind == "object":
        return required_config(schema)
    if kind == "array":
        items, count = schema.get("items"), schema.get("minItems")
        item = _placeholder(items if isinstance(items, dict) else {})
        return [item] * (count if isinstance(count, int) else 0)
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    if kind == "boolean":
        return False
    return "https://api.example.com" if schema.get("format") == "uri" else "change-me"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _secret(connector: str, keys: tuple[str, ...]) -> str:
    name = connector.split("-", maxsplit=1)[0]
    lines = [
        "# Credentials of the source. Keep this file out of version control; in a cluster, create the Secret there instead.",
        "apiVersion: v1",
        "kind: Secret",
        f"metadata: {{name: {name}-credentials, namespace: team-a}}",
        "stringData:",
        *(f'  {key}: ""   # put yours in quotes' for key in keys),
    ]
    return "\n".join(lines) + "\n"


def _write(directory: Path, files: dict[str, str]) -> None:
    """Write the files; none if one of them exists. Raises CommandError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if there := [name for name in files if (directory / name).exists() or (directory / name).is_symlink()]:
            raise CommandError(
                f"{directory} holds {', '.join(there)} already; nothing was written: name another folder"
            )
        for name, text in files.items():
            with (directory / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except FileExistsError:
        raise CommandError(f"{directory} is a file; name a folder") from None
    except OSError as error:
        raise CommandError(f"{directory} cannot be written: {error.strerror}; name another folder") from None
