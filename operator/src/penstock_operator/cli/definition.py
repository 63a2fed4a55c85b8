"""`penstock definition`: the ConnectorDefinition of an installed connector."""

from __future__ import annotations

from importlib import metadata, resources
from typing import Annotated, Any, cast

import typer
import yaml
from penstock_sdk._safe_yaml import load_yaml

from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.resources.models import API_VERSION, GROUP
from penstock_operator.resources.spelling import nearest_word

NO_IMAGE = "not-pulled.invalid/connector@sha256:" + "0" * 64


class _Quoting(yaml.SafeDumper):
    """Quotes `y` and `n`, which kubectl's YAML 1.1 reads as booleans and PyYAML does not."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if text in ("y", "Y", "n", "N") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Quoting.add_representer(str, _quoted)


def installed_connectors() -> list[str]:
    """Return the names of the connectors that installed packages offer."""
    return sorted(entry.name for entry in metadata.entry_points(group="penstock.connectors"))


def installed_manifest(artifact: str) -> dict[str, Any]:
    """Return the manifest of an installed connector. Raises CommandError."""
    found = next(iter(metadata.entry_points(group="penstock.connectors", name=artifact)), None)
    if found is None:
        known = installed_connectors()
        near = nearest_word(artifact, known)
        hint = f"; did you mean {near}?" if near else ""
        raise CommandError(f"no installed package offers {artifact}; there are: {', '.join(known) or 'none'}{hint}")
    manifest = load_yaml((resources.files(found.module.split(".")[0]) / "connector.yaml").read_text(encoding="utf-8"))
    return cast("dict[str, Any]", manifest)


def definition_yaml(manifest: dict[str, Any], image: str = NO_IMAGE, stage: str = "certified") -> str:
    """Return a ConnectorDefinition as YAML."""
    document = {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": "ConnectorDefinition",
        "metadata": {"name": f"{manifest['name']}-{manifest['method']}-{manifest['version']}"},
        "spec": {"image": image, "stage": stage, "manifest": manifest},
    }
    return f"---\n{yaml.dump(document, Dumper=_Quoting, sort_keys=False, width=120)}"


def definition(
    artifact: Annotated[str, typer.Argument(help="An installed connector, such as postgres-sql.")],
    image: Annotated[str, typer.Option(help="The image by digest; on a laptop no image is pulled.")] = NO_IMAGE,
    stage: Annotated[
        str, typer.Option(help="certified, or preview, which no range selects, deprecated or withdrawn.")
    ] = "certified",
) -> None:
    """Print the ConnectorDefinition of an installed connector, ready for kubectl or a folder.

    Example: penstock definition postgres-sql > folder/postgres-sql.yaml
    """
    typer.echo(definition_yaml(installed_manifest(artifact), image, stage), nl=False)
