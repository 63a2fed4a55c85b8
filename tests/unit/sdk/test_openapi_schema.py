"""A schema from an OpenAPI document: references, null, several schemas in one, and what samples say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from penstock_sdk.author.commands import app
from penstock_sdk.author.openapi_schema import Extent, schema_of_openapi
from penstock_sdk.author.project import ProjectError
from penstock_sdk.author.schema_inference import DRAFT, differences
from typer.testing import CliRunner

USER = {
    "type": "object",
    "required": ["id", "password"],
    "properties": {
        "id": {"type": "integer", "format": "int64", "minimum": 1},
        "email": {"type": "string", "format": "email", "nullable": True},
        "password": {"type": "string", "writeOnly": True},
        "state": {"type": "string", "enum": ["on", "off"], "description": "What\n  it is."},
        "manager": {"$ref": "#/components/schemas/User"},
        "tags": {"type": "array", "items": {"$ref": "#/components/schemas/Tag"}},
        "born": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "home": {"oneOf": [{"type": "string"}, {"$ref": "#/components/schemas/Tag"}]},
    },
}
SCHEMAS: dict[str, Any] = {
    "User": USER,
    "Users": {"type": "array", "items": {"$ref": "#/components/schemas/User"}},
    "Tag": {"properties": {"name": {"type": ["string", "null"]}}},
    "Admin": {"allOf": [{"$ref": "#/components/schemas/Tag"}, {"type": "object", "required": ["level"], "properties": {"level": {"type": "integer"}}}]},
    "Charge": {
        "type": "object",
        "required": ["id", "refunds"],
        "properties": {
            "id": {"type": "string", "description": "Its id."},
            "payer": {
                "anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/User"}, {"$ref": "#/components/schemas/Gone"}],
                "nullable": True,
                "x-expansionResources": {"oneOf": [{"$ref": "#/components/schemas/User"}, {"$ref": "#/components/schemas/Gone"}]},
            },
            "review": {
                "anyOf": [{"$ref": "#/components/schemas/Tag"}],
                "x-expansionResources": {"oneOf": [{"$ref": "#/components/schemas/Tag"}]},
            },
            "card": {"type": "object", "properties": {"checks": {"type": "object", "properties": {"cvc": {"type": "string"}}}}},
            "method": {"anyOf": [{"$ref": "#/components/schemas/Tag"}, {"$ref": "#/components/schemas/Gone"}]},
            "refunds": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string"}, "tag": {"type": "string"}}}},
        },
    },
    "Gone": {"type": "object", "required": ["deleted"], "properties": {"deleted": {"type": "boolean"}}},
    "Name": {"type": "string"},
    "Lost": {"$ref": "#/components/schemas/Nobody"},
    "Elsewhere": {"$ref": "other.yaml#/User"},
}  # fmt: skip


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "openapi.yaml"
    path.write_text(json.dumps({"openapi": "3.0.3", "components": {"schemas": SCHEMAS}}))
    return path


def test_a_schema_is_written_out_for_records(document: Path) -> None:
    schema, personal = schema_of_openapi(document, "User")
    assert schema == {
        "$schema": DRAFT,
        "type": "object",
        "properties": {
            "id": {"type": "integer"},
            "email": {"type": ["string", "null"], "format": "email"},
            "state": {"type": "string", "description": "What it is."},
            "manager": {},  # a reference to itself
            "tags": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": ["string", "null"]}}}},
            "born": {"type": ["string", "null"], "format": "date"},
            "home": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"name": {"type": ["string", "null"]}}}]},
        },
        "required": ["id"],
    }  # fmt: skip
    jsonschema.Draft202012Validator.check_schema(schema)
    assert personal["email"] == "email"


def test_the_schema_of_a_list_is_that_of_its_items(document: Path) -> None:
    assert schema_of_openapi(document, "Users") == schema_of_openapi(document, "User")


def test_several_schemas_in_one_are_merged(document: Path) -> None:
    schema, _ = schema_of_openapi(document, "Admin")
    assert (list(schema["properties"]), schema["required"]) == (["name", "level"], ["level"])  # type: ignore[arg-type]


def test_swagger_2_has_its_schemas_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "swagger.yaml"
    path.write_text("swagger: '2.0'\ndefinitions: {User: {type: object, properties: {id: {type: integer}}}}\n")
    assert schema_of_openapi(path, "User")[0]["properties"] == {"id": {"type": "integer"}}


def test_a_field_that_a_request_can_expand_holds_the_identifier(document: Path) -> None:
    schema, personal = schema_of_openapi(document, "Charge")
    properties: Any = schema["properties"]
    assert properties["payer"] == {"type": ["string", "null"]}
    assert properties["review"]["properties"] == {
        "name": {"type": ["string", "null"]}
    }  # nothing but the expanded object
    assert not any(path.startswith("payer.") for path in personal)


def test_levels_fields_and_descriptions_can_be_left_out(document: Path) -> None:
    schema, _ = schema_of_openapi(
        document, "Charge", Extent(depth=1, without=["refunds", "review"], descriptions=False)
    )
    assert schema == {
        "$schema": DRAFT,
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "payer": {"type": ["string", "null"]},
            "card": {"type": "object"},
            "method": {"type": "object"},  # two objects without their fields are one schema
        },
        "required": ["id"],
    }
    nested, _ = schema_of_openapi(document, "Charge", Extent(without=["card.checks.cvc", "refunds.tag"]))
    properties: Any = nested["properties"]
    assert properties["card"]["properties"]["checks"] == {"type": "object", "properties": {}}
    assert list(properties["refunds"]["items"]["properties"]) == ["id"]


@pytest.mark.parametrize("path", ["refund", "card.check", "id.of"])
def test_a_field_to_leave_out_that_the_schema_lacks_is_named(path: str, document: Path) -> None:
    command = ["infer-schema", "--openapi", str(document), "--schema", "Charge", "--without", path]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, ProjectError)
    assert f"the schema 'Charge' has no field {path!r}" in str(done.exception)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("user", "no schema 'user'; did you mean 'User'\\?"),
        ("Name", "is no object"),
        ("Lost", "leads nowhere"),
        ("Elsewhere", "leads to another document"),
    ],
)
def test_a_schema_that_cannot_be_used_is_named(name: str, text: str, document: Path) -> None:
    with pytest.raises(ProjectError, match=text):
        schema_of_openapi(document, name)


@pytest.mark.parametrize(
    ("content", "text"), [("[]", "no OpenAPI document"), ("{", "neither JSON nor YAML"), ("a: 1", "neither 'openapi'")]
)
def test_a_file_that_is_no_document_is_named(content: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(ProjectError, match=text):
        schema_of_openapi(tmp_path / "x.yaml", "User")


def test_references_that_double_at_each_level_are_refused(tmp_path: Path) -> None:
    reference = "#/components/schemas/L{}".format
    levels: dict[str, Any] = {
        f"L{level}": {"type": "object", "properties": {name: {"$ref": reference(level + 1)} for name in "abcd"}}
        for level in range(12)
    }
    levels["L12"] = {"type": "string"}
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"openapi": "3.1.0", "components": {"schemas": levels}}))
    with pytest.raises(ProjectError, match="more than 50,000 parts"):
        schema_of_openapi(path, "L0")


def test_samples_are_compared_with_the_schema(document: Path) -> None:
    schema, _ = schema_of_openapi(document, "User")
    samples: list[Any] = [{"id": 1}, {"id": "2", "tags": [{"name": 3}]}, {"nickname": "x"}, {"id": 4, "nickname": "y"}]
    assert differences(schema, samples) == [
        "does not fit: id: is string, not integer (1 records)",
        "does not fit: nickname: the schema does not declare it (2 records)",
        "does not fit: tags.[].name: is integer, not ['string', 'null'] (1 records)",
        "does not fit: the record: lacks id (1 records)",
    ]


def test_the_command_prints_the_schema_and_what_does_not_fit(document: Path, tmp_path: Path) -> None:
    command = ["infer-schema", "--openapi", str(document), "--schema", "User"]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, json.loads(done.stdout)["type"]) == (0, "object")
    samples = tmp_path / "samples.json"
    samples.write_text('[{"id": "x"}]')
    done = CliRunner().invoke(app, [*command, str(samples)])
    assert done.exit_code == 1
    assert "does not fit: id: is string, not integer (1 records)" in done.stderr
