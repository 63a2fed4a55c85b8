"""`penstock init`: whatever connector it is given, what it writes is valid, and it overwrites nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from penstock_operator.cli.definition import definition_yaml, installed_connectors, installed_manifest
from penstock_operator.cli.init import manifest_model, required_config, starting_files
from penstock_operator.cli.main import run
from penstock_operator.cli.validation import examined
from penstock_sdk.manifest import config_problems


@pytest.mark.parametrize("connector", installed_connectors())
def test_what_it_writes_is_valid(connector: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    assert run(["init", str(folder), "--connector", connector]) == 0
    assert run(["validate", str(folder)]) == 0
    assert "valid" in capsys.readouterr().err


def test_the_beginning_of_a_connectors_name_is_answered_with_the_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", str(tmp_path / "folder"), "--connector", "faker"]) == 2
    assert "did you mean faker-generate?" in capsys.readouterr().err


SCHEMAS: list[dict[str, Any]] = [
    {},
    {"type": "object"},
    {"type": "object", "required": ["a"]},
    {
        "type": "object",
        "required": ["url", "count", "mode", "on", "list", "nested", "text", "fixed", "given"],
        "properties": {
            "url": {"type": "string", "format": "uri"},
            "count": {"type": "integer", "minimum": 5},
            "mode": {"enum": ["slow", "fast"]},
            "on": {"type": "boolean"},
            "list": {"type": "array", "minItems": 2, "items": {"type": "number"}},
            "nested": {"type": "object", "required": ["x"], "properties": {"x": {"type": ["string", "null"]}}},
            "text": {"type": "string"},
            "fixed": {"const": 3},
            "given": {"type": "string", "default": "y"},
            "optional": {"type": "string"},
        },
        "additionalProperties": False,
    },
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_connector_that_nobody_knows_gets_a_config_that_its_schema_accepts(
    schema: dict[str, Any], tmp_path: Path
) -> None:
    assert config_problems(required_config(schema), schema) == []
    manifest = {**installed_manifest("faker-generate"), "name": "shop", "configSchema": schema}
    files = starting_files("shop-generate", manifest_model(manifest), definition_yaml(manifest))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert examined([tmp_path])[1] == []


@pytest.mark.parametrize("there", ["definition.yaml", "connection.yaml", "secret.yaml"])
@pytest.mark.parametrize("link", [False, True])
def test_nothing_is_overwritten(there: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, link: bool) -> None:
    if link:
        (tmp_path / there).symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / there).write_text("mine")
    assert run(["init", str(tmp_path), "--connector", "postgres-sql"]) == 2
    assert there in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [there]


@pytest.mark.parametrize("place", ["file/below", "file"])
def test_a_place_that_cannot_be_written_is_named(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert run(["init", str(tmp_path / place)]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
