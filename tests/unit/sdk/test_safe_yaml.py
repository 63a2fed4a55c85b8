"""YAML that stands for more than its text shows is refused, whatever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from penstock_operator.embedded.documents import FolderError, documents_of
from penstock_sdk._safe_yaml import (
    MAX_NUMBER_CHARACTERS,
    MAX_YAML_CHARACTERS,
    MAX_YAML_DEPTH,
    MAX_YAML_VALUES,
    load_yaml,
)

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
MERGES = "a0: &a0 {k: v}\n" + "".join(
    f"a{level}: &a{level}\n  <<: [*a{level - 1}, *a{level - 1}]\n" for level in range(1, 60)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{level}: &a{level} [*a{level - 1}]\n" for level in range(1, 2_000))
BOMBS = {
    "aliases of aliases": LAUGHS,
    "merges of merges": MERGES,
    "a chain of aliases": CHAIN,
    "a sequence inside itself": "a: &a [*a]",
    "a mapping inside itself": "a: &a {b: *a}",
    "brackets": "[" * 100_000,
    "a long number": "1" * 1_000_000,
    "a long number to the base of 60": "1" + ":59" * 300_000,
    "a long hexadecimal number": "0x" + "f" * 1_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml(BOMBS[name])
    file = tmp_path / "bomb.yaml"
    file.write_text(BOMBS[name])
    with pytest.raises(FolderError, match=r"bomb\.yaml: document 1: not YAML: "):
        list(documents_of(file))


def test_a_document_has_a_limit_of_values_and_an_alias_counts_as_what_it_repeats() -> None:
    def text(values: int) -> str:
        thousand = f"a: &a [{'1,' * 997}]\nb: ["  # 1,002 values: with b, the keys and the mapping
        aliases, rest = divmod(values - 1_002, 998)
        return f"{thousand}{'*a,' * aliases}{'1,' * rest}]"

    assert load_yaml(text(MAX_YAML_VALUES)) is not None
    with pytest.raises(yaml.YAMLError, match="holds more than 200,000 values"):
        load_yaml(text(MAX_YAML_VALUES + 1))


def test_a_document_has_a_limit_of_depth() -> None:
    assert load_yaml("[" * MAX_YAML_DEPTH + "]" * MAX_YAML_DEPTH) is not None
    with pytest.raises(yaml.YAMLError, match="nested deeper than 100"):
        load_yaml("[" * (MAX_YAML_DEPTH + 1) + "]" * (MAX_YAML_DEPTH + 1))


def test_a_number_has_a_limit_of_characters() -> None:
    assert load_yaml("1" * MAX_NUMBER_CHARACTERS) == int("1" * MAX_NUMBER_CHARACTERS)
    with pytest.raises(yaml.YAMLError, match="a number with more than 100 characters; write it in quotes"):
        load_yaml("1" * (MAX_NUMBER_CHARACTERS + 1))


def test_a_text_has_a_limit_of_characters() -> None:
    padding = " " * (MAX_YAML_CHARACTERS - 1)
    assert load_yaml(f"1{padding}") == 1
    with pytest.raises(yaml.YAMLError, match="has 4,194,305 characters; at most 4,194,304"):
        load_yaml(f"1{padding} ")


def test_every_file_of_the_repository_is_read_with_limits() -> None:
    root = Path(__file__).parents[3]
    sources = [*root.glob("*/src/**/*.py"), *root.glob("connectors/*/src/**/*.py")]
    assert sources
    loose = [str(path) for path in sources if "yaml.safe_load" in path.read_text()]
    assert loose == []
