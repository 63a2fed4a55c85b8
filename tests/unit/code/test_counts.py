"""The counts of counts.toml may only fall.

A count that rose fails with the new places. A count that fell fails too, until `make counts` has written the lower
number, so that the table stays true. An old word whose number is 0 is refused from then on.

| count | what it counts |
|---|---|
| signatures_with_row | functions outside of the registry package whose signature says `Row` |
| public_signatures_with_unknown_dict | public functions and methods with `dict[str, Any]`, `dict`, or an alias of one; not the types of `NAMED_DOCUMENTS` |
| public_signatures_with_any | public functions and methods that say `Any`, also as the value of a dict |
| public_fields_with_unknown_dict | fields of public classes with a dict of unknown shape |
| subscripts_by_literal_key | `thing["key"]`, except in the modules of `DOCUMENTS_ENTER` |
| plain_ids | parameters and fields named `uid`, `run_id`, `namespace`, `attempt`, ... and typed `str` or `int` |
| loops_named_each, loops_named_each_in_tests | loops and comprehensions whose item is named `each` |
| class_names_defined_twice | names of public classes that more than one module defines |
| module_names_more_than_twice | names that more than two modules or packages have |
| private_names_in_tests | attributes with an underscore, of something other than `self` or `super()` |
| sleeps_in_tests | sleeps, except in a loop that waits for a condition |
| old_word_... | names, and for some words texts, with a word that the glossary replaced (old_words.py) |
"""

from __future__ import annotations

import ast
from pathlib import PurePosixPath

import pytest

from tests.unit.code.counts import (
    COUNTS,
    DOCUMENTS_ENTER,
    NAMED_DOCUMENTS,
    TABLE,
    Annotations,
    places_of,
    public_signatures,
    read_table,
    risen,
    table_text,
)
from tests.unit.code.sources import Module, tree_of_tests, working_tree


@pytest.fixture(scope="module")
def sources() -> list[Module]:
    return working_tree() + tree_of_tests()


@pytest.fixture(scope="module")
def table() -> dict[str, int]:
    return read_table(TABLE.read_text())


def test_the_table_has_every_count(table: dict[str, int]) -> None:
    assert list(table) == list(COUNTS), "make counts"
    assert TABLE.read_text() == table_text(table), "make counts"


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_may_only_fall(name: str, sources: list[Module], table: dict[str, int]) -> None:
    places = places_of(name, sources)
    if len(places) > table[name]:
        pytest.fail(risen(name, places, table[name]))
    assert len(places) == table[name], f"lower {name} to {len(places)} in {TABLE.name}: make counts"


def test_the_modules_where_documents_enter_exist(sources: list[Module]) -> None:
    names = {module.name for module in sources if not module.is_test}
    assert [name for name in DOCUMENTS_ENTER if name not in names] == []


ALIASES = Module(
    PurePosixPath("operator/src/penstock_operator/aliases.py"),
    """
from typing import Any

Document = dict[str, Any]
Page = list[Document]
""",
)
JSON_TYPES = Module(
    PurePosixPath("connector-sdk/src/penstock_sdk/json_types.py"),
    """
if TYPE_CHECKING:
    JsonValue: TypeAlias = str | Mapping[str, "JsonValue"]
    JsonObject: TypeAlias = Mapping[str, JsonValue]
""",
)
EXAMPLE = Module(
    PurePosixPath("operator/src/penstock_operator/example.py"),
    """
'''The crew.'''
from collections.abc import Mapping
from typing import Any, Literal
from penstock_operator.aliases import Document, Page
from penstock_sdk.json_types import JsonObject, JsonValue

Kind = Literal["one"]

class Known:
    run_id: str
    attempts: int
    spec: Document

def row(row: Row) -> None: ...
def of_alias(page: Page) -> None: ...
def quoted(page: "Page | None") -> None: ...
def bare(document: dict) -> None: ...
def deep(document: dict[str, list[Mapping[str, object]]]) -> None: ...
def any_value(value: Any) -> None: ...
def json(document: JsonObject, schemas: dict[str, JsonObject], value: JsonValue) -> None: ...
def unnamed_json(document: dict[str, JsonValue]) -> None: ...
def known(names: dict[str, str]) -> dict[str, "Known"]:
    def inner(document: dict) -> None: ...
    return names["one"] + names[name]
def _private(document: dict) -> None: ...
def ids(uid: str, connection_uid: str | None, attempt: int, run: str, known_uid: Uid) -> None:
    return [each for each in uid] + [name for name in uid]
def reset_position() -> None: ...
""",
)
EXPECTED = {
    "signatures_with_row": ["row"],
    "public_signatures_with_unknown_dict": ["of_alias", "quoted", "bare", "deep", "unnamed_json"],
    "public_signatures_with_any": ["of_alias", "quoted", "any_value"],
    "public_fields_with_unknown_dict": ["Known.spec"],
    "subscripts_by_literal_key": ["names['one']"],
    "plain_ids": ["ids(uid)", "ids(connection_uid)", "ids(attempt)", "Known.run_id"],
    "loops_named_each": ["for each in uid"],
    "old_word_crew": ["The crew."],
    "old_word_position": ["reset_position"],
    "old_word_mark": [],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_a_count_finds(name: str) -> None:
    assert [place.what for place in COUNTS[name]([ALIASES, JSON_TYPES, EXAMPLE])] == EXPECTED[name]


def test_no_named_document_is_any(sources: list[Module]) -> None:
    annotations = Annotations([module for module in sources if not module.is_test])
    for module, name in NAMED_DOCUMENTS:
        assert not annotations.has_any(module, ast.Name(name)), name


def test_public_signatures_leave_out_private_and_inner_functions() -> None:
    names = [place.what for place in public_signatures([EXAMPLE])]
    assert names == [
        "row",
        "of_alias",
        "quoted",
        "bare",
        "deep",
        "any_value",
        "json",
        "unnamed_json",
        "known",
        "ids",
        "reset_position",
    ]


def test_names_that_are_used_too_often() -> None:
    paths = [f"operator/src/penstock_operator/{package}/logs.py" for package in ("api", "cli", "runs")]
    modules = [Module(PurePosixPath(path), "class Log: ...\nclass _Own: ...\n") for path in paths]
    (repeated,) = COUNTS["class_names_defined_twice"](modules)
    assert repeated.what == "Log"
    (repeated,) = COUNTS["module_names_more_than_twice"](modules)
    assert str(repeated).endswith(f"logs also in {paths[0]}, {paths[1]}")
    assert list(COUNTS["module_names_more_than_twice"](modules[1:])) == []


def test_what_the_counts_of_tests_find() -> None:
    text = """
def test(thing):
    thing._private.public = self._own
    super()._own()
    named_tuple._replace(field=1)
    while True:
        time.sleep(1)
    asyncio.sleep(0)
    asyncio.sleep(2)
"""
    module = Module(PurePosixPath("tests/unit/test_example.py"), text)
    assert [place.what for place in places_of("private_names_in_tests", [module, EXAMPLE])] == ["thing._private"]
    assert [place.what for place in places_of("sleeps_in_tests", [module, EXAMPLE])] == ["asyncio.sleep(2)"]


def test_of_two_numbers_in_a_merge_conflict_the_lower_is_meant() -> None:
    text = "<<<<<<< HEAD\nplain_ids = 5\n=======\nplain_ids = 7\n>>>>>>> other\nold_word_crew = 0\n"
    assert read_table(text) == {"plain_ids": 5, "old_word_crew": 0}


def test_the_message_of_a_count_that_rose_lists_the_places() -> None:
    places = list(COUNTS["plain_ids"]([EXAMPLE]))
    message = risen("plain_ids", places, 3)
    assert message.startswith("plain_ids rose from 3 to 4.")
    assert "operator/src/penstock_operator/example.py:27: ids(connection_uid)" in message
