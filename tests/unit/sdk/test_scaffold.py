"""A new project's files say what they were given, whatever a name or title looks like to YAML, TOML or Python."""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from penstock_sdk.manifest import manifest_problems
from penstock_sdk.scaffold import LONGEST_NAME, NAME, OTHER_WORDS, TEMPLATES, ScaffoldError, create

WORDS = ["yes", "no", "on", "off", "y", "n", "null", "true", "false", "nan", "inf", "e1", "class", "none", "connector"]
TITLES = [
    "Yes", "on", "null", "~", "1.0", "1e3", "0x10", "2026-01-01", "12:30", "a: b", "a #b", "# a", "- a", "? a", "&a",
    "*a", "!a", "%a", "@a", "`a`", "{a}", "[a]", "'", '"', "it's", '"a" and \'b\'', "\\", "\\n", "a\\", '"""', "=", "<<",
    "é", "日本語", "😀", "العربية", "a" * 80, "@name@", "{title}", "${HOME}", "%(x)s", "<b>a</b>", "a, b", "|", ">", "...",
    "---", ".", ":", "a:", "1_000", "0o7", "+1", ".5", "None", "True",
]  # fmt: skip
NAMES = st.one_of(st.sampled_from(WORDS), st.from_regex(NAME, fullmatch=True).filter(lambda name: len(name) <= 40))
SHOWN = st.one_of(
    st.sampled_from(TITLES),
    st.text(min_size=1, max_size=80).filter(lambda text: text.isprintable() and bool(text.strip())),
)


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(name=NAMES, title=SHOWN)
def test_what_a_project_is_given_is_what_its_files_say(template: str, name: str, title: str) -> None:
    method = TEMPLATES[template].method
    with tempfile.TemporaryDirectory() as folder:
        made = create(name, template, Path(folder) / "new", title)
        (declared,) = made.glob("src/*/connector.yaml")
        manifest = yaml.safe_load(declared.read_text(encoding="utf-8"))
        assert (manifest["name"], manifest["title"]) == (name, title.strip())
        assert title.strip() in manifest["description"]
        assert not manifest_problems(manifest)
        package = tomllib.loads((made / "pyproject.toml").read_text(encoding="utf-8"))
        assert package["project"]["description"] == f"{title.strip()} for Penstock."
        assert all(map(Requirement, package["project"]["dependencies"]))
        assert all(map(Requirement, package["project"]["optional-dependencies"]["dev"]))
        assert list(package["project"]["entry-points"]["penstock.connectors"]) == [f"{name}-{method}"]
        assert yaml.safe_load((made / "connector.test.yaml").read_text())["connector"] == f"{name}-{method}"
        yaml.safe_load((made / ".github/workflows/test.yaml").read_text())
        for path in made.rglob("*.py"):
            ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("title", ["", " ", "a\nb", "a\tb", "\x00", "\x1b[2J", "\u2028", "\ufeff", "\ud800", "a" * 81])
def test_a_title_that_is_no_line_of_text_is_refused(title: str, tmp_path: Path) -> None:
    with pytest.raises(ScaffoldError, match="--title must be one line of text"):
        create("orders", "rest", tmp_path / "new", title)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", ["a", "a" * LONGEST_NAME, "-".join("a" * 20)])
def test_the_project_of_the_shortest_and_longest_name_is_formatted(name: str, template: str, tmp_path: Path) -> None:
    made = create(name, template, tmp_path / "new", 'It\'s \\ "so"')
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=made, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_template_that_there_is_not_is_answered_with_the_nearest(tmp_path: Path) -> None:
    for word, meant in {"sqll": "sql", "REST": "rest", **OTHER_WORDS}.items():
        with pytest.raises(
            ScaffoldError, match=rf"no template '{word}'; did you mean '{meant}'\? There are: rest, sql, files"
        ):
            create("orders", word, tmp_path / "new")
    with pytest.raises(ScaffoldError, match="no template 'xyz'; There are: rest, sql, files"):
        create("orders", "xyz", tmp_path / "new")
    assert not (tmp_path / "new").exists()
