"""`penstock bronze sql` over objects of every kind: what can be read is read, what cannot is named."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock_operator.cli.bronze_sql import BronzeView, FetchedObjects, unpack
from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.cli.output import Output
from penstock_operator.cli.query_output import print_relation

COUNT = "SELECT count(*) AS n FROM bronze"


def line(data: str, seq: int = 1) -> bytes:
    head = f'"id": "{seq}", "tenant": "t", "connection": "c", "connector": "x", "stream": "s", "run": "r"'
    tail = '"op": "upsert", "extracted_at": "2026-01-01T00:00:00Z", "schema_version": 1'
    return f'{{{head}, "seq": {seq}, {tail}, "data": {data}}}\n'.encode()


def packed(*lines: bytes) -> bytes:
    return zstandard.compress(b"".join(lines))


class Bronze:
    """Objects, loaded as the command loads them."""

    def __init__(self, scratch: Path, objects: dict[str, bytes]) -> None:
        self.loaded = FetchedObjects()
        for index, (key, body) in enumerate(objects.items()):
            path = scratch / f"{index:06d}.jsonl"
            if problem := unpack(body, path):
                self.loaded.reports.append(f"{key}: {problem}")
            self.loaded.files[path] = key
        self.database = duckdb.connect()
        BronzeView(self.database, scratch).make(self.loaded)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.database.sql(query).fetchall()


GOOD = packed(line('{"a": 1}'), line('{"a": null}', 2))
BAD = {
    "it is not zstd": b"no zstd",
    "it breaks off": packed(line('{"a": 1}'))[:-5],
    "it is truncated": packed(line('{"a": 1}'))[:3],
    "no bytes": b"",
    "line 1: it is not JSON": packed(b"no json\n"),
    "line 2": packed(line('{"a": 1}'), line('{"x": 1, "X": 2}')),
    "line 3": packed(line("1"), line("2"), line('"\xff"').decode().encode("latin-1")),
    "differ by case only": packed(line('{"x": 1, "X": 2}')),
    "nested deeper": packed(line("[" * 400 + "]" * 400)),
    "line 1": packed(line('"' + "\x01" + '"')),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("first", [True, False])
def test_an_object_that_cannot_be_read_is_named_and_the_others_are_read(
    kind: str, tmp_path: Path, *, first: bool
) -> None:
    objects = {"bad": BAD[kind], "good": GOOD} if first else {"good": GOOD, "bad": BAD[kind]}
    bronze = Bronze(tmp_path, objects)
    assert bronze.rows("SELECT count(*) FROM bronze WHERE seq IN (1, 2) AND stream = 's'")[0][0] >= 2
    assert any(report.startswith("bad") for report in bronze.loaded.reports)
    assert kind == "no bytes" or any(kind in report for report in bronze.loaded.reports), bronze.loaded.reports
    assert not any(report.startswith("good") for report in bronze.loaded.reports)


def test_objects_whose_fields_differ_by_case_are_both_read(tmp_path: Path) -> None:
    bronze = Bronze(tmp_path, {"a": packed(line('{"x": 1}')), "b": packed(line('{"X": "2"}', 2))})
    assert bronze.rows(COUNT) == [(2,)]


def test_only_the_first_hundred_bad_lines_are_searched(tmp_path: Path) -> None:
    bronze = Bronze(tmp_path, {"bad": packed(*[b"x\n"] * 300), "good": GOOD})
    assert bronze.rows(COUNT) == [(2,)]
    assert len(bronze.loaded.reports) == 1


def test_without_anything_to_read_the_view_is_empty(tmp_path: Path) -> None:
    bronze = Bronze(tmp_path, {"bad": b"no zstd"})
    assert bronze.rows(COUNT) == [(0,)]


@pytest.mark.parametrize("count", [1, 300])
def test_a_table_whose_columns_differ_by_case_only_is_read_as_json(tmp_path: Path, count: int) -> None:
    lines = [line(json.dumps({"x": index, "X": -index}), index) for index in range(count)]
    bronze = Bronze(tmp_path, {"table": packed(*lines), "bad": packed(b"no json\n")})
    last = bronze.rows("SELECT data->>'$.x', data->>'$.X' FROM bronze ORDER BY seq DESC LIMIT 1")
    assert (bronze.rows(COUNT), last) == ([(count,)], [(str(count - 1), str(1 - count))])
    assert [report.split(" ")[0] for report in bronze.loaded.reports] == ["bad,", "the"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("xXyY [/z]\x1b") | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(records=st.lists(JSON, min_size=1, max_size=4))
def test_every_record_is_read_or_named(tmp_path_factory: pytest.TempPathFactory, records: list[Any]) -> None:
    objects = {f"o{index}": packed(line(json.dumps(record), index)) for index, record in enumerate(records)}
    bronze = Bronze(tmp_path_factory.mktemp("bronze"), objects)
    (found,) = bronze.rows(COUNT)[0]
    named = {report.split(",")[0].split(":")[0] for report in bronze.loaded.reports} & objects.keys()
    assert found + len(named) == len(records), bronze.loaded.reports


VALUES = """SELECT '[/x]' AS "[red]", NULL AS "n", '\x1b[31m' AS "\x1b", 'NaN'::DOUBLE AS nan, 1 AS x, 2 AS "X",
    [1, NULL] AS list, {'a': NULL, 'b': 'y'} AS struct, 12345678901234567890123::HUGEINT AS huge, DATE '2026-01-02' AS day,
    TIMESTAMPTZ '2026-01-01 00:00:00+00' AS at, '\\x00ab'::BLOB AS bytes, '{"a": null}'::JSON AS json, 'a,"b\nc' AS text"""


def test_json_has_each_value_and_column(capsys: pytest.CaptureFixture[str]) -> None:
    database = duckdb.connect()
    with pytest.raises(CommandError):
        print_relation(database, "SELECT nothing", Output.json)
    print_relation(database, VALUES, Output.json)
    (row,) = json.loads(capsys.readouterr().out)
    assert list(row)[:4] == ["[red]", "n", "\x1b", "nan"]
    assert (row["[red]"], row["n"], row["\x1b"], row["x"], row["X_2" if "X_2" in row else "X"]) == (
        "[/x]",
        None,
        "\x1b[31m",
        1,
        2,
    )
    assert (row["list"], row["struct"], row["json"]) == ([1, None], {"a": None, "b": "y"}, {"a": None})
    assert row["huge"] == 12345678901234567890123


def test_csv_has_each_value_and_column(capsys: pytest.CaptureFixture[str]) -> None:
    print_relation(duckdb.connect(), VALUES, Output.csv)
    titles, row = csv.reader(io.StringIO(capsys.readouterr().out))
    assert len(titles) == len(set(titles)) == len(row) == 14
    assert (row[0], row[1], row[13]) == ("[/x]", "", 'a,"b\nc')


def test_a_table_in_a_pipe_is_not_wrapped_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    print_relation(duckdb.connect(), f"SELECT repeat('w', 3000) AS wide, * FROM ({VALUES})", Output.table)
    printed = capsys.readouterr().out
    assert "w" * 3000 in printed
    assert "\x1b" not in printed
    assert "[/x]" in printed
    assert "[red]" in printed


@pytest.mark.parametrize("output", Output)
@pytest.mark.parametrize(
    "query",
    [
        "",
        ";",
        "SELECT",
        "CREATE TABLE x (a INT)",
        "SELECT 1 WHERE false",
        "SELECT 1; SELECT 2",
        "\x00",
        "\udcff",
        "[/x]",
        "SELECT 1 AS a, 2 AS a",
    ],
)
def test_any_query_is_answered_or_refused(query: str, output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(CommandError):
        print_relation(duckdb.connect(), query, output)
    printed = capsys.readouterr().out
    if output is Output.json and printed:
        json.loads(printed)
