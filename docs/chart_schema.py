"""Write the schemas of the settings into the chart's values schema: `chart_schema.py TARGET`.

A value of the chart that sets a variable of `penstock_operator.settings` gets its type, bounds, default and description from
that variable. All other values are written by hand in charts/penstock/values.schema.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from penstock_operator.settings import VARIABLES, Variable

SCHEMA = Path(__file__).parents[1] / "charts" / "penstock" / "values.schema.json"


def schema_text(written: str) -> str:
    """Return the text of the schema, with the schemas of the settings."""
    schema: dict[str, Any] = json.loads(written)
    for variable in VARIABLES:
        if variable.value:
            _set(schema, variable)
    return json.dumps(schema, indent=2) + "\n"


def _set(schema: dict[str, Any], variable: Variable) -> None:
    *sections, name = variable.value.split(".")
    node = schema
    for section in sections:
        node = node["properties"].setdefault(
            section, {"type": "object", "additionalProperties": False, "properties": {}}
        )
    node["properties"][name] = variable.value_schema()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_text(SCHEMA.read_text()))
