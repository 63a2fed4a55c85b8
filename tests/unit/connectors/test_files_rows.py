"""Rows of files: resumed anywhere they go on there, whatever the pieces they come in, and a bad one is named."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
import yaml
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from penstock_files_object.arrow_values import exact_values, schema_of_arrow_type
from penstock_files_object.bad_rows import BadRows, discard
from penstock_files_object.config import CsvOptions, FilesConfig, StreamConfig, validated
from penstock_files_object.content import TextContent
from penstock_files_object.csv_rows import CsvFile, csv_batches
from penstock_files_object.file_cursor import File, FileOffset
from penstock_files_object.jsonl_rows import JsonlFile
from penstock_files_object.values import type_of_values
from penstock_sdk import ConfigError, SourceContractError
from penstock_sdk.manifest import config_problems

COMPRESS = {"none": bytes, "gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}
TEXT = {"type": ["string", "null"]}
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=12)
tables = st.lists(st.lists(texts, min_size=3, max_size=3), max_size=12)


class Stored:
    """A file in memory, given out in pieces of a size; it notes from where it was asked for."""

    def __init__(self, body: bytes, piece: int = 1 << 18) -> None:
        self.body = body
        self.piece = piece
        self.asked: list[int] = []
        self.file = File("s3://b/f", '"1"', 0, len(body))

    def open(self, start: int) -> Iterator[bytes]:
        self.asked.append(start)
        for at in range(start, len(self.body), self.piece):
            yield self.body[at : at + self.piece]


def stream(format_: str = "csv", **options: Any) -> StreamConfig:
    return StreamConfig("s", ["s3://b/f"], format_, **options)  # type: ignore[arg-type]


def csv_read(
    stored: Stored, at: FileOffset | None = None, size: int = 2, types: dict[str, Any] | None = None, **options: Any
) -> list[tuple[list[dict[str, Any]], FileOffset]]:
    config = stream(**options)
    reading = CsvFile(config, stored.file, stored.open, BadRows("s", "f", config.on_bad_row, discard))
    properties = types or dict.fromkeys(("a", "b", "c", "column_1", "column_2", "column_3"), TEXT)
    found = [(list(records), offset) for records, offset in csv_batches(reading, properties, at, size)]
    return msgspec.json.decode(msgspec.json.encode(found), type=list[tuple[list[dict[str, Any]], FileOffset]])


def flat(batches: list[tuple[list[dict[str, Any]], Any]]) -> list[dict[str, Any]]:
    return [record for records, _ in batches for record in records]


@given(
    rows=tables,
    compression=st.sampled_from(["none", "gzip", "zstd"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-8"]),
    piece=st.integers(1, 40),
    size=st.integers(1, 4),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_is_whole_and_goes_on_from_every_place(
    rows: list[list[str]], compression: str, encoding: str, piece: int, size: int, ending: str
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=ending).writerows([["a", "b", "c"], *rows])
    stored = Stored(COMPRESS[compression](text.getvalue().encode(encoding)), piece)
    options = {"csv": CsvOptions(encoding=encoding)}
    whole = csv_read(stored, size=size, **options)
    assert flat(whole) == [dict(zip("abc", row, strict=True)) for row in rows]
    for at, (_, place) in enumerate(whole):
        assert flat(csv_read(stored, place, size, **options)) == flat(whole[at + 1 :])


@given(
    rows=st.lists(st.dictionaries(texts, texts, max_size=3), max_size=25),
    compression=st.sampled_from(["none", "gzip", "zstd"]),
    piece=st.integers(1, 40),
    size=st.integers(1, 4),
    end=st.sampled_from([b"", b"\n"]),
)
def test_jsonl_is_whole_and_goes_on_from_every_place(
    rows: list[dict[str, str]], compression: str, piece: int, size: int, end: bytes
) -> None:
    body = b"\n".join(map(msgspec.json.encode, rows)) + (end if rows else b"")
    stored = Stored(COMPRESS[compression](body), piece)

    def pages(at: Any = None) -> list[tuple[list[Any], Any]]:
        reading = JsonlFile(stream("jsonl"), stored.file, stored.open, BadRows("s", "f", "fail", discard))
        return [(msgspec.json.Decoder(dict).decode_lines(page), place) for page, place in reading.pages(at, size)]

    whole = pages()
    assert flat(whole) == rows
    for at, (_, place) in enumerate(whole):
        assert flat(pages(place)) == flat(whole[at + 1 :])


def test_a_plain_file_is_asked_for_from_where_the_state_stands() -> None:
    """The megabytes before are not read again."""
    row = b"1,2,%s\n" % (b"x" * 10_000)
    stored = Stored(b"a,b,c\n" + row * 300)
    (_, offset), *_ = csv_read(Stored(stored.body), size=200)
    assert len(flat(csv_read(stored, offset))) == 100
    assert stored.asked == [0, 6 + len(row) * 200]


@pytest.mark.parametrize(
    ("body", "line", "reason"),
    [
        (b"a,b,c\n1,2,3\n1,2\n4,5,6\n", 3, "it has 2 fields, and the file has 3 columns"),
        (b"a,b,c\n1,2,3\n1,2,3,4\n4,5,6\n", 3, "it has 4 fields"),
        (b'a,b,c\n1,2,3\n1,"2"x,3\n4,5,6\n', 3, "expected after"),
        (b'a,b,c\n1,2,3\n1,"2,3\n4,5,6\n', 3, "unexpected end of data"),
        (b"a,b,c\n1,2,3\n1,\xff,3\n4,5,6\n", 3, "not utf-8"),
        (b'a,b,c\n"1\n",2,3\n1,2\n4,5,6\n', 4, "it has 2 fields"),
    ],
)
def test_a_bad_csv_row_is_named_by_its_line_and_costs_no_other(body: bytes, line: int, reason: str) -> None:
    with pytest.raises(SourceContractError, match=f"f, line {line}: .*{reason}"):
        csv_read(Stored(body), size=1)
    kept = flat(csv_read(Stored(body), size=1, on_bad_row="skip"))
    assert [row["a"].strip() for row in kept] == ["1", "4"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"a":1', "it is not JSON"),
        (b"[1]", "it is not a JSON object"),
        (b'{"a":1} {"b":2}', "it is not JSON"),
        (b'{"a":"\xff"}', "is not UTF-8"),
        (b'{"a":NaN}', "it is not JSON"),
        (b"}", "it is not JSON"),
    ],
)
def test_a_bad_json_line_is_named_and_costs_no_other(bad: bytes, reason: str) -> None:
    body = b'\xef\xbb\xbf{"n":1}\n\n ' + b'{"n":2}\n' + bad + b'\n{"n":3}'

    def pages(policy: Any) -> list[Any]:
        stored = Stored(body)
        reading = JsonlFile(
            stream("jsonl", on_bad_row=policy), stored.file, stored.open, BadRows("s", "f", policy, discard)
        )
        return [row for page, _ in reading.pages(None, 100) for row in msgspec.json.Decoder(dict).decode_lines(page)]

    with pytest.raises(SourceContractError, match=f"f, line 4: .*{reason}"):
        pages("fail")
    assert pages("skip") == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_page_keeps_every_digit() -> None:
    line = b'{"big":123456789012345678901234567890,"price":1.10,"e":1e-400}'
    stored = Stored(line)
    [(page, _)] = JsonlFile(stream("jsonl"), stored.file, stored.open, BadRows("s", "f", "fail", discard)).pages(
        None, 10
    )
    assert page == line


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-20", "0"], "integer"),
        (["1", "007"], "text"),
        (["1", "+33"], "text"),
        (["-0"], "text"),
        (["999999999999999999"], "integer"),
        (["12345678901234567890"], "text"),
        (["1", "1.50"], "number"),
        (["0.1234567890123456789"], "text"),
        (["12E4"], "text"),
        (["1,5"], "text"),
        ([".5"], "text"),
        (["NaN"], "text"),
        (["true", "False"], "boolean"),
        (["true", "1"], "text"),
        (["", ""], "text"),
        (["", "1"], "integer"),
        (["2026-01-01"], "text"),
        (["\u0663"], "text"),
        (["1_000"], "text"),
        (["1\n"], "text"),
    ],
)
def test_a_sample_makes_a_number_only_where_nothing_is_lost(values: list[str], kind: str) -> None:
    assert type_of_values(values) == kind


@given(
    st.lists(
        st.one_of(
            texts, st.from_regex(r"\A-?[0-9]{1,25}(\.[0-9]{1,20})?\Z"), st.sampled_from(["true", "False", "TRUE"])
        ),
        min_size=1,
    )
)
def test_what_a_column_became_is_written_as_it_stood(values: list[str]) -> None:
    """Whatever the kind, the text in Bronze is the text of the file; booleans and what is absent have their own."""
    kind = type_of_values(values)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([["a", "b"], *([value, "x"] for value in values)])
    stored = Stored(text.getvalue().encode())
    config = stream()
    reading = CsvFile(config, stored.file, stored.open, BadRows("s", "f", "fail", discard))
    types = {"a": {"type": ["string" if kind == "text" else kind, "null"]}, "b": TEXT}
    [(records, _)] = csv_batches(reading, types, None, 10_000)
    for value, record in zip(values, records, strict=True):
        written = msgspec.json.encode(record["a"]).decode()
        if kind == "text":
            assert msgspec.json.decode(written) == value
        else:
            assert written == ((value.lower() if kind == "boolean" else value) or "null")


def test_a_value_that_the_sample_did_not_foresee_names_line_column_and_remedy() -> None:
    types = {"a": {"type": ["integer", "null"]}, "b": TEXT, "c": TEXT}
    body = b"a,b,c\n1,x,y\n,x,y\nabc,x,y\n12345678901234567890,x,y\n"
    with pytest.raises(
        SourceContractError, match=r"line 4: the column 'a' holds a value that is not of type integer.*declare"
    ) as error:
        csv_read(Stored(body), types=types, size=10)
    assert "abc" not in str(error.value)
    kept = csv_read(Stored(body), types=types, size=10, on_bad_row="skip")
    assert [row["a"] for row in flat(kept)] == [1, None, 12345678901234567890]


def test_columns_are_found_by_name_and_an_unknown_one_ends_the_read() -> None:
    assert flat(csv_read(Stored(b"c,a\n1,2\n"))) == [{"c": "1", "a": "2"}]
    with pytest.raises(SourceContractError, match="the column 'd' is not in the stream's schema"):
        csv_read(Stored(b"a,d\n1,2\n"))
    with pytest.raises(SourceContractError, match="two columns have the name 'a'"):
        csv_read(Stored(b"a,a\n1,2\n"))
    with pytest.raises(SourceContractError, match="there is no column 'b', which is in primaryKey"):
        csv_read(Stored(b"a\n1\n"), primary_key=["b"])


def test_files_without_a_header_and_null_values() -> None:
    options = {"csv": CsvOptions(header=False, delimiter=";", null_values=["NULL"])}
    assert flat(csv_read(Stored(b"1;NULL;\n2;x;y\n"), **options)) == [
        {"column_1": "1", "column_2": None, "column_3": ""},
        {"column_1": "2", "column_2": "x", "column_3": "y"},
    ]
    named = {"csv": CsvOptions(header=False, columns=["a", "b"])}
    assert flat(csv_read(Stored(b"1,2\n"), **named)) == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_compressed_file_that_was_cut_off_is_no_whole_one(kind: str) -> None:
    """The last line of half a file looks like a line."""
    stored = Stored(COMPRESS[kind](b"x" * 5000)[:-6], 7)
    with pytest.raises(SourceContractError, match="cut off"):
        list(TextContent(stored.file, stored.open))


@given(st.sampled_from(["gzip", "zstd"]), st.lists(st.binary(min_size=1, max_size=50), max_size=4), st.integers(1, 30))
def test_files_of_several_members_are_read_to_their_end(kind: str, parts: list[bytes], piece: int) -> None:
    parts = [b"text ", *parts]
    stored = Stored(b"".join(map(COMPRESS[kind], parts)), piece)
    assert b"".join(TextContent(stored.file, stored.open)) == b"".join(parts)


def test_compression_is_seen_by_content_and_held_against_what_is_said() -> None:
    stored = Stored(b"plain")
    with pytest.raises(SourceContractError, match="its content is not gzip"):
        list(TextContent(stored.file, stored.open, "gzip"))


def test_arrow_values_that_json_would_round_are_text() -> None:
    moment = 1_714_965_000_123_456_789
    batch = pa.record_batch(
        {
            "at": pa.array([moment, None], pa.timestamp("ns", "Europe/Paris")),
            "local": pa.array([moment, None], pa.timestamp("ns")),
            "day": pa.array([19000, None], pa.date32()),
            "time": pa.array([1, None], pa.time64("ns")),
            "price": pa.array(["1.10", None]).cast(pa.decimal128(30, 2)),
            "bytes": pa.array([b"\x00\xff", None]),
            "big": pa.array([2**64 - 1, None], pa.uint64()),
            "took": pa.array([1, None], pa.duration("ns")),
            "kind": pa.array(["x", None]).dictionary_encode(),
            "deep": pa.array([[{"at": moment}], None], pa.list_(pa.struct([("at", pa.timestamp("ns"))]))),
        }
    )
    first, second = msgspec.json.decode(msgspec.json.encode(exact_values(batch).to_pylist()))  # type: ignore[union-attr]
    assert first == {
        "at": "2024-05-06T03:10:00.123456789Z",
        "local": "2024-05-06T03:10:00.123456789",
        "day": "2022-01-08",
        "time": "00:00:00.000000001",
        "price": "1.10",
        "bytes": "AP8=",
        "big": 2**64 - 1,
        "took": 1,
        "kind": "x",
        "deep": [{"at": "2024-05-06 03:10:00.123456789"}],
    }
    assert set(second.values()) == {None}
    assert schema_of_arrow_type(batch.schema.field("at").type)["format"] == "date-time"


def test_floats_that_json_does_not_have_are_named() -> None:
    batch = pa.record_batch({"x": [1.5, float("nan"), float("-inf"), None], "y": [[1.0], [float("inf")], [], None]})
    rows = msgspec.json.decode(msgspec.json.encode(exact_values(batch)))
    assert [row["x"] for row in rows] == [1.5, "NaN", "-Infinity", None]
    assert [row["y"] for row in rows] == [[1.0], ["Infinity"], [], None]


def test_a_batch_without_them_stays_a_batch() -> None:
    assert isinstance(exact_values(pa.record_batch({"x": [1.5, None]})), pa.RecordBatch)


BASE = {"name": "s", "paths": ["s3://b/k.csv"], "format": "csv"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"streams": [BASE, BASE]}, "two streams have the name 's'"),
        ({"streams": [{**BASE, "paths": ["s3://b"]}]}, r"streams\[0\].paths\[0\]: .*must be s3://bucket/key"),
        ({"streams": [{**BASE, "paths": ["https://h/a.csv"]}]}, "name its server in spec.config.baseUrl"),
        (
            {"baseUrl": "https://h", "streams": [{**BASE, "paths": ["https://x/a.csv"]}]},
            "https://x:443 is not the server",
        ),
        ({"streams": [{**BASE, "csv": {"encoding": "utf-9"}}]}, "'utf-9' is not a text encoding"),
        ({"streams": [{**BASE, "csv": {"encoding": "base64"}}]}, "'base64' is not a text encoding"),
        ({"streams": [{**BASE, "csv": {"delimiter": "ab"}}]}, "csv.delimiter: it must be one character"),
        ({"streams": [{**BASE, "csv": {"quote": ","}}]}, "delimiter, quote and escape must be different"),
        ({"streams": [{**BASE, "csv": {"columns": ["a"]}}]}, "set header: false"),
        ({"streams": [{**BASE, "format": "parquet", "compression": "gzip"}]}, "Parquet files are compressed inside"),
    ],
)
def test_a_config_that_cannot_work_is_refused_before_any_request(config: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validated(msgspec.convert(config, FilesConfig))


def test_paths_are_found_below_the_base_url() -> None:
    config = {"baseUrl": "https://h/x/", "streams": [{**BASE, "paths": ["a.csv", "https://h/b.csv"]}]}
    assert validated(msgspec.convert(config, FilesConfig)).streams[0].paths == ["https://h/x/a.csv", "https://h/b.csv"]


def test_a_row_that_never_ends_is_named_before_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_files_object.content.MOST_ROW_BYTES", 5000)
    body = b'a,b,c\n1,"2,3\n' + b"4,5,6\n" * 1000
    with pytest.raises(SourceContractError, match="line 2: a row of more than"):
        csv_read(Stored(body))
    assert len(flat(csv_read(Stored(body), on_bad_row="skip", size=100))) == 1000


ROOT = Path(__file__).parents[3]
DOCUMENTED = [*sorted((ROOT / "examples" / "files").glob("*.yaml")), ROOT / "docs" / "connectors" / "files-object.md"]


@pytest.mark.parametrize("path", DOCUMENTED, ids=lambda path: path.name)
def test_what_is_shown_as_an_example_is_a_config(path: Path) -> None:
    text = path.read_text()
    text = text.partition("```yaml\n")[2].partition("```")[0] if path.suffix == ".md" else text
    manifest = yaml.safe_load((ROOT / "connectors/files-object/src/penstock_files_object/connector.yaml").read_text())
    configs = [
        document["spec"]["config"] for document in yaml.safe_load_all(text) if document["kind"] == "TenantConnection"
    ]
    assert configs
    for config in configs:
        assert config_problems(config, manifest["configSchema"], "config") == []
        assert validated(msgspec.convert(config, FilesConfig)).streams
