"""A schema from samples: one that each of them fits, and the same in whatever order they come."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_sdk import Stream
from penstock_sdk._contract_checks import checked_streams
from penstock_sdk.author.project import ProjectError
from penstock_sdk.author.schema_inference import infer, records_of

NAMES = st.one_of(st.sampled_from(["id", "email", "at", "$ref", "type", "", "a.b", "é"]), st.text(max_size=4))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.dates().map(str),
    st.uuids().map(str),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(NAMES, VALUES, max_size=5), min_size=1, max_size=8)
MANY = settings(max_examples=int(os.environ.get("PENSTOCK_SAMPLES", "100")), deadline=None)


@MANY
@given(RECORDS, st.randoms(use_true_random=False))
def test_each_sample_fits_the_schema_which_is_the_same_in_any_order(
    records: list[dict[str, Any]], order: random.Random
) -> None:
    schema, personal = infer(records)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for record in records:
        validator.validate(record)
    jsonschema.Draft202012Validator.check_schema(schema)
    mixed = [dict(order.sample(list(record.items()), len(record))) for record in records]
    order.shuffle(mixed)
    assert json.dumps(infer(mixed)) == json.dumps((schema, personal))
    assert json.dumps(infer(records + records)[0]) == json.dumps(schema)


def test_it_says_what_may_be_null_or_missing_and_which_format_text_has() -> None:
    schema, personal = infer(
        [
            {"id": 1, "at": "2026-01-01T00:00:00Z", "day": "2026-01-01", "n": 1, "tags": [], "who": {"email": "a"}},
            {"id": 2, "at": "2026-01-02T00:00:00+01:00", "day": "soon", "n": 1.5, "tags": ["x", None], "note": None},
        ]
    )
    assert schema["required"] == ["at", "day", "id", "n", "tags"]
    assert schema["properties"] == {
        "at": {"type": "string", "format": "date-time"},
        "day": {"type": "string"},
        "id": {"type": "integer"},
        "n": {"type": "number"},
        "note": {"type": "null"},
        "tags": {"type": "array", "items": {"type": ["string", "null"]}},
        "who": {"type": "object", "properties": {"email": {"type": "string"}}, "required": ["email"]},
    }
    assert personal == {"who.email": "email"}
    checked_streams([Stream(name="items", schema=schema, primary_key=("id",))])


def test_a_column_of_csv_is_of_the_type_that_all_its_values_look_like(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(
        b'\xef\xbb\xbfid,zip,n,ok,at,note\r\n1,01234,1,true,2026-01-01,\r\n2,99999,2.5,FALSE,2026-01-02,"a\nb"\r\n'
    )
    schema, _ = infer(records_of([file]))
    types = {name: (node["type"], node.get("format")) for name, node in schema["properties"].items()}
    assert types == {
        "id": ("integer", None),
        "zip": ("string", None),
        "n": ("number", None),
        "ok": ("boolean", None),
        "at": ("string", "date"),
        "note": (["string", "null"], None),
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_header_says_what_separates_columns(delimiter: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(delimiter.join(["id", "name"]) + "\n" + delimiter.join(["1", "a"]) + "\n")
    assert list(infer(records_of([file]))[0]["properties"]) == ["id", "name"]


@settings(max_examples=60, deadline=None)
@given(records=RECORDS)
def test_json_and_json_lines_give_the_same(
    records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("samples")
    (folder / "a.json").write_text(json.dumps(records))
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert infer(records_of([folder / "a.json"])) == infer(records_of([folder / "a.jsonl"]))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(st.one_of(TEXT, st.integers().map(str)), min_size=2, max_size=2), min_size=1, max_size=5))
def test_any_csv_that_is_written_by_the_book_is_read(
    rows: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    written = io.StringIO(newline="")
    csv.writer(written).writerows([["a", "b"], *rows])
    file = tmp_path_factory.mktemp("samples") / "a.csv"
    file.write_bytes(written.getvalue().encode())
    records = list(records_of([file]))
    assert len(records) == len(rows)
    infer(records)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"", "no records"),
        ("a.json", b"[]", "no records"),
        ("a.json", b"[1]", "item 1 is no object"),
        ("a.json", b"3", "the document is no object"),
        ("a.json", b"[{]", "neither JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": NaN}\n', "line 2"),
        ("a.jsonl", b'{"a": 1}\n[2]\n', "line 2 is no object"),
        ("a.json", b"\xff\xfe", "not UTF-8 at byte 0"),
        ("a.csv", b"", "the first line names the columns"),
        ("a.csv", b"a,a\n1,2\n", "two columns are named 'a'"),
        ("a.csv", b"a\n1,2\n", "row 1 has more values"),
        ("a.csv", b'a\n"1\n', "not CSV"),
        ("a.csv", b"a\n", "no records"),
        ("a.json", b"[" * 100_000, "neither JSON"),
    ],
)
def test_what_is_no_sample_is_named_by_file_and_line(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ProjectError, match=said):
        infer(records_of([tmp_path / name]))
