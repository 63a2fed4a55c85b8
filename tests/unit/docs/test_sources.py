"""The reference is written from the code: what it is written from must say something of everything."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import get_args

import penstock_operator
import penstock_sdk
import pytest
import yaml
from penstock_operator.resources import models
from penstock_operator.resources.conditions import MEANINGS, Reason
from penstock_operator.settings import VARIABLES, WholeNumber
from penstock_sdk.manifest import Declared
from penstock_sdk.manifest import model as manifest


def test_every_reason_has_a_meaning() -> None:
    assert list(MEANINGS) == list(get_args(Reason))


def test_every_variable_that_the_operator_reads_is_in_the_table() -> None:
    root = Path(penstock_operator.__file__).parent
    found = {name for path in root.rglob("*.py") for name in re.findall(r"\bPENSTOCK_[A-Z0-9_]+", path.read_text())}
    assert found == {variable.name for variable in VARIABLES if variable.name.startswith("PENSTOCK_")}


def test_the_charts_values_are_those_of_the_settings() -> None:
    chart = Path(penstock_operator.__file__).parents[3] / "charts" / "penstock"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    schema = json.loads((chart / "values.schema.json").read_text())
    for variable in VARIABLES:
        if not variable.value:
            continue
        default, declared = values, schema
        for name in variable.value.split("."):
            default, declared = default[name], declared["properties"][name]
        assert declared == variable.value_schema(), "make reference"
        if isinstance(variable, WholeNumber):
            assert default == variable.number, variable.value


def test_every_field_of_the_resources_and_the_manifest_is_described() -> None:
    kinds = [var for var in (*vars(models).values(), *vars(manifest).values()) if inspect.isclass(var)]
    declared = {kind for kind in kinds if issubclass(kind, Declared)}
    assert len(declared) > 20
    bare = [
        f"{item.__name__}.{name}"
        for item in declared
        for name, field in item.model_fields.items()
        if not field.description
    ]
    assert bare == [], "put a docstring below the field"


@pytest.mark.parametrize(
    "name", [name for name in penstock_sdk.__all__ if inspect.isclass(getattr(penstock_sdk, name))]
)
def test_everything_public_of_the_contract_is_described(name: str) -> None:
    thing = getattr(penstock_sdk, name)
    own = [value for key, value in vars(thing).items() if not key.startswith("_")]
    functions = [value for value in own if inspect.isfunction(value) or isinstance(value, property | classmethod)]
    assert thing.__doc__
    assert [function for function in functions if not function.__doc__] == []
