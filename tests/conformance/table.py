"""The table hostile connector by check, as the suite's own runs gave it: `make conformance-table` writes the page.

Each run of tests/conformance/test_hostile.py compares its row with the page, so that the page cannot say another thing.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from penstock_sdk.testing import CHECKS

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "authors" / "hostile-connectors.md"
MARKS = {"failed": "**✗**", "passed": "·", "not run": "-", "not applicable": "n/a"}
HEAD = """# Hostile connectors

Each connector does one thing wrong. The table shows the results of the suite: **✗** failed, · passed, - not run, because no
undisturbed run succeeds. Each row has one cross: no other check finds the error. The first row is a new project of
`penstock-connector new`. The connectors are in [tests/conformance/hostile.py](../../tests/conformance/hostile.py).
`make conformance-table` writes this page, and `make conformance` fails if a run gives another row.

"""
ORDINARY = "*a new project*"


def columns() -> str:
    """Return the table's first two lines."""
    return f"| connector | {' | '.join(check.name for check in CHECKS)} |\n|---|{':-:|' * len(CHECKS)}"


def row(connector: str, outcomes: Mapping[str, str]) -> str:
    """Return a connector's line: an outcome for each check."""
    return f"| {connector} | {' | '.join(MARKS[outcomes[check.name]] for check in CHECKS)} |"


def wrongs() -> dict[str, str]:
    """Return what each hostile connector does wrong, in the words of its docstring."""
    tree = ast.parse((HERE / "hostile.py").read_text())
    said = {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.ClassDef)}
    return {name: text.partition(": ")[2] for name, text in said.items() if ": " in text}


def page(rows: Mapping[str, str]) -> str:
    """Return the whole page from the rows of all connectors."""
    legend = "".join(f"| {name} | {text} |\n" for name, text in wrongs().items() if name in rows)
    body = "\n".join([columns(), rows[ORDINARY], *(rows[name] for name in wrongs() if name in rows)])
    return f"{HEAD}{body}\n\n## What they do\n\n| connector | what it does |\n|---|---|\n{legend}"


def main(folder: Path) -> None:
    """Write the page from the rows that a run of the tests left in a folder."""
    rows = dict(json.loads(path.read_text()) for path in folder.iterdir())
    PAGE.write_text(page(rows))
    sys.stdout.write(f"{PAGE.name}: {len(rows) - 1} connectors, {len(CHECKS)} checks\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
