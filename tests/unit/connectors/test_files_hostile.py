"""Legal files of every kind: each row is a record or a bad row by its line, and what is no file of rows is named."""

from __future__ import annotations

import bz2
import csv
import dataclasses
import io
import json
import lzma
import os
import zlib
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_files_object.bad_rows import BadRows
from penstock_files_object.config import CsvOptions, FilesConfig, validated
from penstock_files_object.csv_rows import CsvFile, csv_batches
from penstock_files_object.jsonl_rows import JsonlFile
from penstock_sdk import ConfigError, SourceContractError

from tests.unit.connectors.test_files_rows import TEXT, Stored, csv_read, flat, stream

EXAMPLES = int(os.environ.get("PENSTOCK_FUZZ_EXAMPLES", "100"))
KINDS = ("text", "integer", "number", "boolean")
NUMBERS = [
    "1e5",
    "0x10",
    "1_000",
    " 1",
    "+1",
    "01",
    "-0",
    "NaN",
    "Infinity",
    "9" * 25,
    "9" * 400,
    "1e400",
    "-1e-400",
    "",
    "2\n3",
]
NUMBERS += ["1\r", "1\n", "\n1", "1,2", "٣", "1.", ".5", "true", "TRUE", "null", "[1]", "{}", '"1"', "1 2"]
values = st.one_of(st.sampled_from(NUMBERS), st.integers().map(str), st.text(max_size=8))


def read_typed(body: bytes, kind: str, **options: Any) -> tuple[list[Any], list[int]]:
    """Return the first column's values as JSON, and the lines of the bad rows."""
    bad_lines: list[int] = []
    config = stream(on_bad_row="skip", **options)
    stored = Stored(body)
    reading = CsvFile(
        config, stored.file, stored.open, BadRows("s", "f", "skip", lambda data, _: bad_lines.append(data["line"]))
    )
    property_ = {"type": ["string" if kind == "text" else kind, "null"]}
    read = [record for records, _ in csv_batches(reading, {"n": property_, "m": TEXT}, None, 3) for record in records]
    return [msgspec.json.encode(record["n"]).decode() for record in read], bad_lines


def test_a_line_break_within_quotes_makes_no_second_record() -> None:
    assert read_typed(b'n\n1\n"2\n3"\n4\n', "integer") == (["1", "4"], [3])


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(values, max_size=12), st.sampled_from(KINDS), st.booleans())
def test_each_row_is_one_record_or_one_bad_row(column: list[str], kind: str, wide: bool) -> None:  # noqa: FBT001
    """The value in Bronze is one JSON value of the column's type, and says what the file says."""
    text = io.StringIO(newline="")
    rows = [[value, "x"] for value in column] if wide else [[value] for value in column]
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([["n", "m"][: 2 if wide else 1], *rows])
    found, bad = read_typed(text.getvalue().encode("utf-8", "replace"), kind)
    assert len(found) + len(bad) == len(column)
    for written in found:
        value = msgspec.json.decode(written, strict=True)
        expected = {"text": str, "integer": (int, float), "number": (int, float), "boolean": bool}[kind]
        assert value is None or isinstance(value, expected)
        assert "\n" not in written


cells = st.text(st.characters(codec="utf-8"), max_size=8)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    table=st.lists(st.lists(cells, min_size=3, max_size=3), max_size=8),
    delimiter=st.sampled_from([",", ";", "\t", "|", "^", "\x1f", "§"]),
    quote=st.sampled_from(['"', "'"]),
    escape=st.sampled_from(["", "\\"]),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "gb18030"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    before=st.integers(0, 3),
    last=st.booleans(),
)
def test_what_is_written_in_any_dialect_is_read_back(
    table: list[list[str]],
    delimiter: str,
    quote: str,
    escape: str,
    ending: str,
    encoding: str,
    quoting: Any,
    before: int,
    last: bool,  # noqa: FBT001
) -> None:
    text = io.StringIO(newline="")
    if any("\r" in cell or "\n" in cell for row in table for cell in row):
        quoting = csv.QUOTE_ALL  # Python's writer quotes no line break but its own
    dialect = {"delimiter": delimiter, "quotechar": quote, "lineterminator": ending, "quoting": quoting}
    writer = csv.writer(text, **dialect, escapechar=escape or None, doublequote=not escape)
    writer.writerows([["a", "b", "c"], *table])
    whole = f"a report{ending}" * before + text.getvalue()
    options = CsvOptions(delimiter=delimiter, quote=quote, escape=escape, encoding=encoding, skip_rows=before)
    body = (whole if last else whole.removesuffix(ending)).encode(encoding)
    assert flat(csv_read(Stored(body, 50), csv=options)) == [dict(zip("abc", row, strict=True)) for row in table]


@settings(max_examples=EXAMPLES * 2, deadline=None)
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.text(st.sampled_from(list("a1,;\t\"'\\\r\n\x00\ufeffé")), max_size=60).map(str.encode),
        st.text(st.sampled_from(list('a1,"\r\n')), max_size=60).map(lambda text: text.encode("utf-16")),
    ),
    options=st.fixed_dictionaries(
        {
            "delimiter": st.sampled_from([",", ";", " ", "\x00"]),
            "quote": st.sampled_from(['"', "'", ""]),
            "escape": st.sampled_from(["", "\\"]),
            "header": st.booleans(),
            "skip_rows": st.integers(0, 2),
            "duplicate_headers": st.sampled_from(["refuse", "rename"]),
            "encoding": st.sampled_from(["utf-8", "utf-16", "latin-1", "cp1252", "utf-7", "shift_jis", "cp037"]),
            "null_values": st.sampled_from([[], ["", "1"]]),
        }
    ),
    policy=st.sampled_from(["fail", "skip"]),
)
def test_no_bytes_are_a_defect_as_csv(body: bytes, options: dict[str, Any], policy: Any) -> None:
    config = stream(on_bad_row=policy, csv=CsvOptions(**options), infer=False)
    stored = Stored(body, 7)
    reading = CsvFile(config, stored.file, stored.open, BadRows("s", "f", policy, lambda *_: None))
    with suppress(SourceContractError):
        for records, _ in csv_batches(reading, {}, None, 3):
            msgspec.json.decode(msgspec.json.encode(records))


@pytest.mark.parametrize(
    ("body", "words", "options"),
    [
        (b"<!DOCTYPE html>\n<html></html>", "it is HTML", {}),
        (b"\n <!-- x -->\n<HTML lang='en'>", "it is HTML", {}),
        (b"<?xml version='1.0'?><Error/>", "it is XML", {}),
        (b'{"id":1}\n{"id":2}\n', "it is JSON", {}),
        (b"PAR1\x15\x04", "set format: parquet", {}),
        (b"PK\x03\x04aaaa", "zip archive", {}),
        (b"BZh91AY&SY", "bzip2", {}),
        ("a,b,c\n1,2,3\n".encode("utf-16"), "set csv.encoding: utf-16 ", {}),
        ("a,b,c\n1,2,3\n".encode("utf-16-le"), "set csv.encoding: utf-16-le", {}),
        (b"a,b,c\n1,\xe9,3\n", "line 2: it is not utf-8; set csv.encoding", {}),
        (b"a,b,\xe9\n1,2,3\n", "line 1: it is not utf-8; set csv.encoding", {}),
        (b"a,b,c\n1,2,3\n", "it is not utf-16-be; set csv.encoding", {"csv": CsvOptions(encoding="utf-16-be")}),
        (b"a,b,b\n1,2,3\n", "set csv.duplicateHeaders: rename", {}),
    ],
)
def test_what_is_no_such_file_is_named_with_the_remedy(body: bytes, words: str, options: dict[str, Any]) -> None:
    with pytest.raises(SourceContractError, match=words):
        csv_read(Stored(body), **options)


MESSAGES = [
    "Unauthorized",
    "unauthorized\n",
    "Not Found",
    "404 Not Found\nnginx\n",
    "HTTP 503 Service Unavailable\n\nplease wait\n",
    "Error 500",
    "403: Forbidden",
    "Access denied.",
    "Service Unavailable",
    "Down for maintenance!",
    "We are back at noon.",
    "Sorry, the site is down for maintenance.\n",
    "\ufeff  Too Many Requests \r\n",
]
LEGAL = [
    "id\n",
    "status\nNot Found\nUnauthorized\n",
    "message\n404 Not Found\n",
    "Not Found\n1\n2\n",
    "error\n",
    "Reg. no.\n",
    "Name,Reg. no.,In use?\n",
    "How old are you?\n41\n",
    "Error 5\n",
    "code,Unauthorized\n",
    "404\n",
    "500,error\n",
    "Is it open?;When?;By whom, and why?\n",
]


@pytest.mark.parametrize("body", MESSAGES)
def test_an_error_in_words_that_was_answered_with_200_is_no_header(body: str) -> None:
    with pytest.raises(SourceContractError, match=r"f: it is a message and has no rows.*open the address"):
        csv_read(Stored(body.encode()), infer=False, types={})


@pytest.mark.parametrize("body", LEGAL)
def test_files_of_one_column_and_files_without_rows_are_read(body: str) -> None:
    lines = [line for line in body.splitlines()[1:] if line]
    assert len(flat(csv_read(Stored(body.encode()), infer=False, types={}))) == len(lines)


@pytest.mark.parametrize(
    ("media_type", "is_refused"), [("text/html", True), ("application/json", True), ("text/csv", False), ("", False)]
)
def test_one_line_that_the_server_calls_a_page_is_no_header(media_type: str, *, is_refused: bool) -> None:
    """With rows beneath, it is read: many servers call everything a page."""
    one, two = Stored(b"ok\n"), Stored(b"ok\n1\n")
    for stored in (one, two):
        stored.file = dataclasses.replace(stored.file, media_type=media_type)
    if is_refused:
        with pytest.raises(SourceContractError, match="it is a message"):
            csv_read(one, infer=False, types={})
    else:
        assert flat(csv_read(one, infer=False, types={})) == []
    assert len(flat(csv_read(two, infer=False, types={}))) == 1


PACKED = {
    "bzip2": bz2.compress(b"a,b\n1,2\n" * 99),
    "xz": lzma.compress(b"a,b\n1,2\n" * 99),
    "lzma": lzma.compress(b"a,b\n1,2\n" * 99, format=lzma.FORMAT_ALONE),
    "zlib": zlib.compress(b"a,b\n1,2\n" * 99),
    "zlib at its best": zlib.compress(b"a,b\n1,2\n" * 99, 9),
    "compress": b"\x1f\x9d\x90a",
    "zip": b"PK\x03\x04aaaa",
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("format_", ["csv", "jsonl"])
@pytest.mark.parametrize("compression", ["auto", "none", "gzip", "zstd"])
def test_another_compression_is_named_with_the_remedy(kind: str, format_: str, compression: str) -> None:
    named = kind.split(" ", maxsplit=1)[0]
    stored, bad = Stored(PACKED[kind]), BadRows("s", "f", "skip", lambda *_: None)
    lines = JsonlFile(stream("jsonl", compression=compression), stored.file, stored.open, bad)
    read = partial(csv_read, stored, compression=compression, infer=False, types={})
    with pytest.raises(SourceContractError, match=rf"f: .*{named}.*(compress it with gzip or zstd|unpack it)"):
        list(read() if format_ == "csv" else lines.pages(None, 3))


def test_columns_of_one_name_are_numbered_where_the_stream_says_so() -> None:
    options = CsvOptions(duplicate_headers="rename")
    [row] = flat(
        csv_read(Stored(b"x,x,x_2,x\n1,2,3,4\n"), types=dict.fromkeys(["x", "x_2", "x_3", "x_4"], TEXT), csv=options)
    )
    assert row == {"x": "1", "x_3": "2", "x_2": "3", "x_4": "4"}


def test_lines_before_the_header_are_passed_over_and_counted() -> None:
    body = b'Report of "May\n\na,b,c\n1,2,3\n1,2\n'
    options = CsvOptions(skip_rows=2)
    assert flat(csv_read(Stored(body), csv=options, on_bad_row="skip")) == [{"a": "1", "b": "2", "c": "3"}]
    with pytest.raises(SourceContractError, match="line 5: it has 2 fields"):
        csv_read(Stored(body), csv=options)


def test_quotes_are_text_where_the_stream_says_that_there_are_none() -> None:
    assert flat(csv_read(Stored(b'a,b,c\n5" disk,"x,"y\n'), csv=CsvOptions(quote=""))) == [
        {"a": '5" disk', "b": '"x', "c": '"y'}
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["streams", "endpoint", "region", "baseUrl", "lookbackHours", "batchRows", "timeoutSeconds", "followRedirects"]


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4),
    st.fixed_dictionaries(
        {
            "paths": st.lists(
                st.one_of(st.text(max_size=12), st.sampled_from(["s3://b/k", "//[", "http://[::1", "a\x00b"])),
                min_size=1,
            )
        },
        optional={
            "schema": st.one_of(
                st.fixed_dictionaries({"properties": json_values}), st.dictionaries(st.text(max_size=3), json_values)
            ),
            "csv": st.dictionaries(
                st.sampled_from(["encoding", "delimiter", "quote", "escape", "skipRows"]), json_values
            ),
        },
    ),
)
def test_no_config_is_a_defect(config: dict[str, Any], of_stream: dict[str, Any]) -> None:
    made = {"streams": [{"name": "s", "format": "csv", **of_stream}], "baseUrl": "http://h", **config}
    try:
        converted = msgspec.convert(made, FilesConfig)
    except msgspec.ValidationError:
        return
    with suppress(ConfigError):
        validated(converted)


def test_every_codec_of_python_is_an_encoding_or_is_refused() -> None:
    import encodings.aliases

    for name in {*encodings.aliases.aliases.values(), "undefined", "idna", "punycode", "unicode_escape", "a\x00b", ""}:
        config = {"streams": [{"name": "s", "format": "csv", "paths": ["s3://b/k"], "csv": {"encoding": name}}]}
        try:
            validated(msgspec.convert(config, FilesConfig))
        except ConfigError:
            continue
        try:
            csv_read(Stored(bytes(range(1, 256)) * 2), csv=CsvOptions(encoding=name), types={}, infer=False)
        except SourceContractError:
            continue


def read_jsonl(body: bytes, policy: Any = "skip", piece: int = 1 << 18) -> tuple[list[Any], list[int]]:
    bad_lines: list[int] = []
    stored = Stored(body, piece)
    bad = BadRows("s", "f", policy, lambda data, _: bad_lines.append(data["line"]))
    pages = JsonlFile(stream("jsonl", on_bad_row=policy), stored.file, stored.open, bad).pages(None, 3)
    return [json.loads(line) for page, _ in pages for line in page.split(b"\n") if line], bad_lines


def nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * levels + b"]" * levels + b"}"


BAD_LINES = [b'{"a":1e400}', b'{"a":{"b":[-1e999]}}', b'{"a":' + b"9" * 400 + b"}", nested(101), nested(5000)]
BAD_LINES += [
    b'{"a":"\\ud800"}',
    b'{"a":"\\udc00x"}',
    b'{"a":NaN}',
    b'{"a":"\xff"}',
    b"[1]",
    b'"x"',
    b"1",
    b'{"a":1}{"b":1}',
    b"{",
]
GOOD_LINES = [
    b"{}",
    b'{"a":1e300}',
    b'{"a":1e-400}',
    b'{"a":"1e400"}',
    b'{"a":' + b"9" * 300 + b"}",
    nested(90),
    b'{"a":1,"a":2}',
]
GOOD_LINES += [b'{"a":"\\ud83d\\ude00"}', b'{"a":"[[["}', '{"a":"\u2028\x85"}'.encode(), b" {} \r", b'{"a":"\\u0000"}']


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.sampled_from([*GOOD_LINES, *BAD_LINES, b""]), max_size=8), st.sampled_from([1, 7, 1 << 18]))
def test_each_json_line_is_one_record_that_readers_take_or_one_bad_row(lines: list[bytes], piece: int) -> None:
    found, bad = read_jsonl(b"{}\n" + b"\n".join(lines), piece=piece)
    assert bad == [at for at, line in enumerate(lines, 2) if line in BAD_LINES]
    assert len(found) == 1 + sum(line in GOOD_LINES for line in lines)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.one_of(st.binary(max_size=80), st.text(st.sampled_from(list('{}[]":,1e9\\ud8\n ')), max_size=60).map(str.encode))
)
def test_no_bytes_are_a_defect_as_json_lines(body: bytes) -> None:
    for policy in ("skip", "fail"):
        with suppress(SourceContractError):
            read_jsonl(body, policy, 7)


@pytest.mark.parametrize("body", [b'[{"a":1},{"a":2}]', b'[\n{"a":1},\n{"a":2}\n]', b"\xef\xbb\xbf [ \n"])
def test_a_file_that_is_one_array_is_named(body: bytes) -> None:
    with pytest.raises(SourceContractError, match="it is one JSON array, not JSON Lines"):
        read_jsonl(body)


def test_a_number_beyond_readers_within_the_sample_is_put_aside_or_named() -> None:
    with pytest.raises(SourceContractError, match="f, line 2: the field 'a' holds a number beyond"):
        read_jsonl(b'{"a":1}\n{"a":1e400}\n', "fail")


@pytest.mark.parametrize("options", [{}, {"csv": CsvOptions(header=False), "infer": False}])
@pytest.mark.parametrize(
    "page", ["<html>\nplease, sign in\n</html>\n", " <!DOCTYPE HTML>\n<p>", "<!-- a -->\n<html lang=en>\n"]
)
def test_a_page_is_no_csv_with_a_header_or_without(page: str, options: dict[str, Any]) -> None:
    with pytest.raises(SourceContractError, match="it is HTML"):
        csv_read(Stored(page.encode()), **options)


@pytest.mark.parametrize("part", ["<div class=login>\nin\n", "<p>denied</p>\n", "<h1>403</h1>\n", "<script>\n1\n"])
def test_a_part_of_a_page_is_no_header_but_may_be_a_row(part: str) -> None:
    with pytest.raises(SourceContractError, match="it is HTML"):
        csv_read(Stored(part.encode()))
    assert csv_read(Stored(part.encode()), csv=CsvOptions(header=False, quote=""))


def test_a_header_with_a_nul_is_named_by_its_line() -> None:
    with pytest.raises(SourceContractError, match=r"line 1: a column's name has a NUL.*csv\.encoding"):
        csv_read(Stored(b"id,a\0b\n1,2\n"))
