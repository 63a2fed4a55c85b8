"""files-object on a real S3 protocol and a real HTTP server: nothing lost or doubled, and errors that say what to do."""

from __future__ import annotations

import gzip
import io
import os
import random
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from penstock_files_object import FilesObject
from penstock_files_object.config import FilesConfig, FilesCredentials
from penstock_files_object.listing import list_files
from penstock_files_object.transport import Transport
from penstock_operator.settings import S3Settings
from penstock_sdk import AuthenticationError, ConfigError, SourceContractError, Stream, TransientError
from penstock_sdk.contract import CollectingSink, rows_of

from tests.integration.connectors.bucket import Bucket
from tests.integration.connectors.files_server import BEGINNING, FilesServer

Row = dict[str, Any]
Open = Callable[..., FilesObject]


@pytest.fixture
def opened(s3_server: S3Settings, server: FilesServer) -> Iterator[Open]:
    """Connectors with a session, closed at the end."""
    made: list[FilesObject] = []

    def open_one(
        paths: list[str] | str, format_: str = "csv", credentials: dict[str, str] | None = None, **options: Any
    ) -> FilesObject:
        of_connection = {key: options.pop(key) for key in list(options) if key in FilesConfig.__struct_encode_fields__}
        stream = {"name": "s", "paths": [paths] if isinstance(paths, str) else paths, "format": format_, **options}
        config = {"endpoint": s3_server.endpoint, "baseUrl": server.url, "batchRows": 3, "streams": [stream]}
        keys = {"accessKeyId": s3_server.access_key, "secretAccessKey": s3_server.secret_key}
        made.append(
            FilesObject(
                msgspec.convert({**config, **of_connection}, FilesConfig),
                msgspec.convert(keys if credentials is None else credentials, FilesCredentials),
            )
        )
        made[-1].authenticate()
        return made[-1]

    yield open_one
    for connector in made:
        connector.close()


def stream_of(source: FilesObject) -> Stream:
    [found] = source.discover()
    if found.unavailable:
        raise found.unavailable
    return found


def batches(source: FilesObject, cursor: Any = None, since: datetime | None = None) -> list[tuple[list[Row], Any]]:
    """What reaches Bronze, and the cursors as the registry keeps them."""
    return [
        (
            msgspec.json.decode(msgspec.json.encode(list(rows_of(batch.records)))),
            msgspec.json.decode(msgspec.json.encode(batch.cursor)),
        )
        for batch in source.read(stream_of(source), since, cursor)
    ]


def rows(source: FilesObject, cursor: Any = None, since: datetime | None = None) -> list[Row]:
    return [row for records, _ in batches(source, cursor, since) for row in records]


def after(source: FilesObject, cursor: Any = None) -> Any:
    """Read to the end, and return the last cursor."""
    return batches(source, cursor)[-1][1]


def table(first: int, count: int) -> pa.Table:
    numbers = range(first, first + count)
    return pa.table({"n": list(numbers), "note": [f"note {n}" for n in numbers], "price": [n / 4 for n in numbers]})


def parquet(found: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(found, sink, **options)
    return sink.getvalue()


def written(format_: str, first: int, count: int) -> bytes:
    found = table(first, count)
    if format_ == "parquet":
        return parquet(found, row_group_size=4)
    if format_ == "jsonl":
        return b"".join(msgspec.json.encode(row) + b"\n" for row in found.to_pylist())
    lines = [f"{row['n']},{row['note']},{row['price']}\n" for row in found.to_pylist()]
    return f"n,note,price\n{''.join(lines)}".encode()


PACKED = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
KINDS = [
    ("csv", ""),
    ("csv", ".gz"),
    ("csv", ".zst"),
    ("jsonl", ""),
    ("jsonl", ".gz"),
    ("jsonl", ".zst"),
    ("parquet", ""),
]


@pytest.mark.parametrize(("format_", "ending"), KINDS)
@pytest.mark.parametrize("where", ["s3", "http"])
def test_a_read_resumes_from_every_cursor(
    opened: Open, bucket: Bucket, server: FilesServer, where: str, format_: str, ending: str
) -> None:
    """Resumed from any batch's cursor, a read gives everything after it and nothing before."""
    counts, first, paths = [11, 0, 1, 7], 0, []
    for at, count in enumerate(counts):
        body, name = PACKED[ending](written(format_, first, count)), f"in/part-{at}.{format_}{ending}"
        paths.append(bucket.put(name, body) if where == "s3" else server.put(name, body, at))
        first += count
    source = opened(bucket.path("in/**") if where == "s3" else paths, format_, primaryKey=["n"])
    found = batches(source)
    whole = [row for records, _ in found for row in records]
    assert sorted(row["n"] for row in whole) == list(range(sum(counts)))
    assert whole[0] == {"n": whole[0]["n"], "note": f"note {whole[0]['n']}", "price": whole[0]["n"] / 4}
    seen = 0
    for records, cursor in found:
        seen += len(records)
        assert rows(source, cursor) == whole[seen:]


def test_new_changed_and_late_files_are_read_and_no_other(opened: Open, bucket: Bucket) -> None:
    bucket.put("in/a.csv", b"n\n1\n")
    bucket.put("in/b.csv", b"n\n2\n")
    source = opened(bucket.path("in/*.csv"))
    cursor = after(source)
    assert rows(source, cursor) == []
    bucket.put("in/0-earlier-in-order.csv", b"n\n3\n")
    bucket.put("in/b.csv", b"n\n22\n")
    bucket.put("in/other.txt", b"n\n4\n")
    bucket.put("in/deeper/c.csv", b"n\n5\n")
    assert sorted(row["n"] for row in rows(source, cursor)) == [3, 22]
    assert rows(source, after(source, cursor)) == []


def test_files_that_share_a_moment_are_told_apart(opened: Open, server: FilesServer) -> None:
    first = [server.put(f"{name}.csv", f"n\n{name}\n".encode(), 5) for name in "24"]
    cursor = after(opened(first))
    more = [server.put(f"{name}.csv", f"n\n{name}\n".encode(), 5) for name in "135"]
    assert [row["n"] for row in rows(opened([*first, *more]), cursor)] == [1, 3, 5]


def test_a_path_that_is_new_to_the_stream_is_read_from_its_start(opened: Open, bucket: Bucket) -> None:
    """Its files may be older than all that was read."""
    bucket.put("old/a.csv", b"n\n1\n")
    bucket.put("new/b.csv", b"n\n2\n")
    cursor = after(opened(bucket.path("new/*")))
    both = opened([bucket.path("new/*"), bucket.path("old/*")], lookbackHours=0)
    assert rows(both, cursor) == [{"n": 1}]


def test_a_file_that_two_paths_match_is_read_once(opened: Open, bucket: Bucket) -> None:
    bucket.put("in/a.csv", b"n\n1\n")
    assert rows(opened([bucket.path("in/*"), bucket.path("**/*.csv")])) == [{"n": 1}]


def test_folders_and_markers_are_passed_over_with_a_line_in_the_log(
    opened: Open, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    for format_ in ("csv", "jsonl", "parquet"):
        for key in ("", "_SUCCESS", "_temporary/0/part.csv", ".part.crc"):
            bucket.put(f"{format_}/{key}", b"" if key in ("", "_SUCCESS") else b"no data of this format")
        bucket.put(f"{format_}/part", written(format_, 0, 3))
        bucket.put(f"{format_}/_day=2/part", written(format_, 3, 1))
        bucket.put(f"{format_}/_named/part", written(format_, 4, 1))
        caplog.clear()
        assert [row["n"] for row in rows(opened(bucket.path(f"{format_}/**"), format_))] == [0, 1, 2, 3]
        assert "begin with _ or . and were not read" in caplog.text
        assert rows(opened(bucket.path(f"{format_}/_named/*"), format_))


def test_what_matches_nothing_names_what_is_there(opened: Open, bucket: Bucket) -> None:
    bucket.put("exports/2026/a.csv", b"n\n1\n")
    for infer in (True, False):
        with pytest.raises(
            ConfigError, match=r"no file matches .*exports/2027/\*.*the bucket has 'exports/2026/a.csv'"
        ):
            stream_of(opened(bucket.path("exports/2027/*"), infer=infer))


def test_keys_are_taken_byte_for_byte(opened: Open, bucket: Bucket) -> None:
    for key in ("in/a b+c%20d&e=f.csv", "in/é~'(1)#?.csv", "in/x//y.csv"):
        bucket.put(key, b"n\n1\n")
    assert len(rows(opened(bucket.path("in/**")))) == 3


def test_a_long_listing_is_followed_to_its_end(opened: Open, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_files_object.listing.PAGE_KEYS", 4)
    for number in range(11):
        bucket.put(f"in/{number}+.csv", f"n\n{number}\n".encode())
    assert len(rows(opened(bucket.path("in/*")))) == 11


def test_since_takes_its_own_moment_in(opened: Open, server: FilesServer) -> None:
    paths = [server.put(f"{at}.csv", f"n\n{at}\n".encode(), at) for at in (1, 2, 3)]
    since = datetime.fromtimestamp(BEGINNING + 2, UTC)
    assert [row["n"] for row in rows(opened(paths), since=since)] == [2, 3]


def test_a_file_that_changes_during_its_read_is_noticed(opened: Open, server: FilesServer, bucket: Bucket) -> None:
    """The next attempt reads the new version from its start."""
    body = b"n\n" + b"1\n" * 400_000
    for store in (server, bucket):
        path = store.put("a.csv", body)
        source = opened(path, batchRows=1000)
        stream = stream_of(source)
        reading = source.read(stream, None, None)
        cursor = msgspec.json.decode(msgspec.json.encode(next(reading).cursor))
        reading.close()
        store.put("a.csv", b"n\n" + b"2\n" * 400_000)
        found = source.read(stream, None, cursor)
        assert rows_of(next(found).records)[0]["n"] == msgspec.Raw(b"2")
        found.close()


def test_a_read_under_way_ends_when_its_file_changes(opened: Open, server: FilesServer) -> None:
    path = server.put("a.parquet", parquet(table(0, 20), row_group_size=5))
    source = opened(path, "parquet", batchRows=5)
    reading = source.read(stream_of(source), None, None)
    next(reading)
    server.put("a.parquet", parquet(table(100, 20), row_group_size=5))
    with pytest.raises(TransientError, match="it was changed while it was being read"):
        list(reading)


@pytest.mark.parametrize("etags", [True, False])
def test_a_change_is_seen_without_the_servers_help(opened: Open, server: FilesServer, etags: bool) -> None:  # noqa: FBT001
    """A server that does not know If-Match still says what it gives."""
    path = server.put("a.csv", b"n\n1\n")
    server.etags = etags
    transport = Transport(opened(path).config, FilesCredentials())
    [file] = list_files(transport, path)
    server.put("a.csv", b"n\n2\n", 9)
    with pytest.raises(TransientError, match="it was changed"):
        list(transport.content(file, 0))
    transport.close()


def test_a_file_that_is_taken_away_is_looked_for_anew(opened: Open, server: FilesServer) -> None:
    path = server.put("a.csv", b"n\n1\n")
    transport = Transport(opened(path).config, FilesCredentials())
    [file] = list_files(transport, path)
    server.files.clear()
    with pytest.raises(TransientError, match="it was deleted after it was listed"):
        list(transport.content(file, 0))
    transport.close()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("sizes", [True, False])
def test_a_broken_connection_is_taken_up_where_it_broke(
    opened: Open, server: FilesServer, *, ranges: bool, sizes: bool
) -> None:
    body = written("csv", 0, 60_000)
    path = server.put("a.csv", body)
    server.ranges, server.sizes = ranges, sizes
    source = opened(path, batchRows=10_000)
    stream = stream_of(source)
    server.asked.clear()
    server.break_after = [300_000, 700_000] if sizes else []
    found = [row for batch in source.read(stream, None, None) for row in rows_of(batch.records)]
    assert len(found) == 60_000
    resumed = [asked for _, _, asked in server.asked if asked]
    assert len(resumed) == (2 if sizes else 0)


def test_a_connection_that_breaks_again_and_again_is_given_up(opened: Open, server: FilesServer) -> None:
    path = server.put("a.csv", b"n\n" + b"1\n" * 100)
    source = opened(path)
    stream = stream_of(source)
    server.break_after = [0] * 10
    with pytest.raises(TransientError, match="cannot be reached, or the connection broke"):
        list(source.read(stream, None, None))


def test_a_server_that_knows_less_is_read_all_the_same(opened: Open, server: FilesServer) -> None:
    """No HEAD, no ranges, no size: Parquet is held in memory, as long as it is small."""
    server.head = server.ranges = server.sizes = False
    assert rows(opened(server.put("a.csv", b"n\n1\n"))) == [{"n": 1}]
    assert len(rows(opened(server.put("a.parquet", parquet(table(0, 9))), "parquet"))) == 9


def test_what_nobody_can_follow_is_offered_in_full_only(opened: Open, server: FilesServer) -> None:
    path = server.put("a.csv", b"n\n1\n")
    assert stream_of(opened(path)).modes == ("full", "incremental")
    server.etags = server.moments = False
    source = opened(path)
    assert stream_of(source).modes == ("full",)
    assert rows(source) == [{"n": 1}]


@pytest.mark.parametrize(
    ("status", "headers", "error", "words"),
    [
        (401, {}, AuthenticationError, "put token, or username and password, into a Secret"),
        (403, {}, AuthenticationError, "spec.secretRef"),
        (404, {}, ConfigError, "there is no such file; correct spec.config.streams.paths"),
        (302, {"Location": "http://elsewhere.example/a.csv"}, ConfigError, "redirects to http://elsewhere.example:80"),
        (429, {"Retry-After": "7"}, TransientError, "answered 429"),
        (503, {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}, TransientError, "answered 503"),
        (500, {}, TransientError, "answered 500"),
        (418, {}, SourceContractError, "answered 418"),
    ],
)
def test_what_a_server_answers_says_what_to_do(
    opened: Open, server: FilesServer, status: int, headers: dict[str, str], error: type[Exception], words: str
) -> None:
    path = server.put("a.csv", b"n\n1\n")
    server.statuses = [(status, headers)] * 4
    with pytest.raises(error, match=words) as raised:
        stream_of(opened(path))
    wish = getattr(raised.value, "retry_after", None)
    assert wish == 7 if headers.get("Retry-After") == "7" else (wish is None or wish > 1e9)


@pytest.mark.parametrize(
    ("status", "headers", "error", "words"),
    [
        (503, {"Retry-After": "7"}, TransientError, "answered 503"),
        (400, {"x-amz-bucket-region": "eu-west-3"}, ConfigError, "spec.config.region: .*set it to eu-west-3"),
        (301, {"x-amz-bucket-region": "eu-west-3"}, ConfigError, "spec.config.region: .*set it to eu-west-3"),
        (501, {}, SourceContractError, "correct the server in spec.config"),
    ],
)
def test_what_a_store_answers_says_what_to_do(
    opened: Open, server: FilesServer, status: int, headers: dict[str, str], error: type[Exception], words: str
) -> None:
    server.statuses = [(status, headers)] * 4
    with pytest.raises(error, match=words) as raised:
        stream_of(opened("s3://b/*.csv", endpoint=server.url))
    assert getattr(raised.value, "retry_after", 7) == 7


def test_credentials_are_sent_where_they_belong(opened: Open, server: FilesServer) -> None:
    path = server.put("a.csv", b"n\n1\n")
    server.authorization = "Bearer t0ken"
    assert rows(opened(path, credentials={"token": "t0ken"})) == [{"n": 1}]
    server.authorization = "Basic dTpw"
    assert rows(opened(path, credentials={"username": "u", "password": "p"})) == [{"n": 1}]
    with pytest.raises(AuthenticationError, match="correct token, or username and password, in the Secret"):
        opened(path, credentials={"token": "wrong"})


def test_a_signature_in_an_address_is_in_no_message_and_no_cursor(opened: Open, server: FilesServer) -> None:
    server.put("a.csv", b"n\n1\n")
    source = opened("a.csv?sig=s3cr3t")
    assert "s3cr3t" not in msgspec.json.encode(after(source)).decode()
    server.statuses = [(500, {})]
    with pytest.raises(TransientError) as raised:
        stream_of(source)
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        ({"accessKeyId": "nobody", "secretAccessKey": "x"}, "correct accessKeyId and secretAccessKey in the Secret"),
        ({"accessKeyId": "nobody"}, "go together"),
        ({}, "it is not public: put accessKeyId and secretAccessKey into a Secret"),
    ],
)
def test_wrong_keys_say_what_to_fix(opened: Open, bucket: Bucket, credentials: dict[str, str], words: str) -> None:
    bucket.put("a.csv", b"n\n1\n")
    for path in ("*.csv", "a.csv"):
        with pytest.raises(AuthenticationError, match=words):
            opened(bucket.path(path), credentials=credentials)


def test_no_such_bucket_and_no_such_file(opened: Open, bucket: Bucket) -> None:
    with pytest.raises(ConfigError, match="has no such bucket; correct paths or endpoint"):
        stream_of(opened("s3://no-such-bucket-here/*.csv"))
    for path in ("typo/*.csv", "typo.csv"):
        with pytest.raises(ConfigError, match=r"no file matches .*; correct the paths, or declare the stream's schema"):
            stream_of(opened(bucket.path(path)))
    declared = {"schema": {"properties": {"n": {"type": "integer"}}}}
    assert rows(opened(bucket.path("to-come/*.csv"), **declared)) == []


def test_a_server_that_is_not_there_is_waited_for(opened: Open) -> None:
    with pytest.raises(TransientError, match="cannot be reached"):
        stream_of(opened("s3://b/a.csv", endpoint="http://127.0.0.1:1"))


def test_the_sample_is_the_same_each_time_and_holds_what_is_said(opened: Open, bucket: Bucket) -> None:
    bucket.put("in/1.csv", b"id,zip,big,price,ok\n1,01234,99999999999999999999,1.50,true\n")
    bucket.put("in/2.csv", b"id,zip,extra\n2,99999,x\n")
    source = opened(bucket.path("in/*"), primaryKey=["id"], schema={"properties": {"ok": {"type": "string"}}})
    first, second = stream_of(source), stream_of(source)
    assert first == second
    assert {name: schema["type"] for name, schema in first.schema["properties"].items()} == {
        "id": ["integer", "null"],
        "zip": ["string", "null"],
        "big": ["string", "null"],
        "price": ["number", "null"],
        "ok": "string",
        "extra": ["string", "null"],
    }
    assert sorted(rows(source), key=lambda row: row["id"]) == [
        {"id": 1, "zip": "01234", "big": "99999999999999999999", "price": 1.5, "ok": "true"},
        {"id": 2, "zip": "99999", "extra": "x"},
    ]


def test_without_inference_everything_is_text(opened: Open, bucket: Bucket) -> None:
    source = opened(bucket.put("a.csv", b"n,m\n1,2\n"), infer=False, schema={"properties": {"m": {"type": "integer"}}})
    assert rows(source) == [{"n": "1", "m": 2}]


def test_a_column_that_changed_its_type_ends_the_read(opened: Open, bucket: Bucket) -> None:
    source = opened(
        bucket.put("a.parquet", parquet(pa.table({"n": ["x"]}))),
        "parquet",
        schema={"properties": {"n": {"type": "integer"}}},
    )
    with pytest.raises(
        SourceContractError,
        match=r"the column 'n' is string, and may be .*, which is not in the stream's schema",
    ):
        rows(source)


@pytest.mark.parametrize(
    ("body", "format_", "words"),
    [
        (b"n\n1\n", "parquet", "it cannot be read as Parquet"),
        (parquet(table(0, 5))[:-20], "parquet", "it cannot be read as Parquet"),
        (gzip.compress(b"n\n1\n", mtime=0)[:-4], "csv", "it was cut off"),
        (b"n,m\n1\n", "csv", "line 2: it has 1 fields"),
        (b'{"n":1}\n{"n":\n', "jsonl", "line 2: it is not JSON"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line(
    opened: Open, bucket: Bucket, body: bytes, format_: str, words: str
) -> None:
    path = bucket.put("a", body)
    with pytest.raises(SourceContractError, match=f"{path}.*{words}"):
        rows(opened(path, format_, schema={"properties": {"n": {}, "m": {}}}, infer=False))


def test_bad_rows_are_put_aside_where_the_stream_says_so(opened: Open, bucket: Bucket) -> None:
    """A message names file and line and no value; what was put aside holds it."""
    path = bucket.put("a.csv", b'n,m\n1,x\n2\n3,"z\n4,y\n')
    source = opened(path, onBadRow="skip")
    source.sink = CollectingSink()
    assert [row["n"] for row in rows(source)] == [1, 4]
    assert source.sink.rejected == [
        ({"file": path, "line": 3, "row": ["2"]}, f"{path}, line 3: it has 1 fields, and the file has 2 columns"),
        ({"file": path, "line": 4, "row": '3,"z\n'}, f"{path}, line 4: unexpected end of data"),
    ]


def test_errors_of_the_store_come_through_arrow(opened: Open, server: FilesServer) -> None:
    source = opened(server.put("a.parquet", parquet(table(0, 9), row_group_size=3)), "parquet")
    stream = stream_of(source)
    reading = source.read(stream, None, None)
    next(reading)
    server.authorization = "Bearer revoked"
    with pytest.raises(AuthenticationError):
        list(reading)


def test_an_estimate_counts_what_is_pending(opened: Open, bucket: Bucket) -> None:
    bucket.put("in/a.csv", b"n\n1\n")
    source = opened(bucket.path("in/*"))
    cursor = after(source)
    bucket.put("in/b.csv", b"n\n12\n")
    estimate = source.estimate(stream_of(source), None, cursor)
    assert (estimate.bytes, estimate.api_calls) == (5, 1)


def test_a_stream_that_cannot_be_sampled_fails_by_itself(
    s3_server: S3Settings, server: FilesServer, bucket: Bucket
) -> None:
    """`discover` offers it with the reason, a read of it raises that, and the others are read."""
    paths = {
        "good": bucket.put("good.csv", b"n\n1\n"),
        "none": bucket.path("none/*.csv"),
        "no-bucket": "s3://no-such-bucket-here/*.csv",
        "page": server.put("page.csv", b"<!DOCTYPE html>\n<html></html>\n"),
        "gone": f"{server.url}/gone.csv",
        "cut": bucket.put("cut.csv", gzip.compress(b"n\n1\n", mtime=0)[:-4]),
    }
    streams = [{"name": name, "paths": [path], "format": "csv"} for name, path in reversed(paths.items())]
    config = {"endpoint": s3_server.endpoint, "baseUrl": server.url, "streams": streams}
    keys = {"accessKeyId": s3_server.access_key, "secretAccessKey": s3_server.secret_key}
    source = FilesObject(msgspec.convert(config, FilesConfig), msgspec.convert(keys, FilesCredentials))
    source.authenticate()
    offered = {stream.name: stream for stream in source.discover()}
    assert offered.keys() == paths.keys()
    assert [name for name, stream in offered.items() if not stream.unavailable] == ["good"]
    assert [len(list(rows_of(batch.records))) for batch in source.read(offered["good"], None, None)] == [1, 0]
    for name in paths.keys() - {"good"}:
        with pytest.raises((ConfigError, SourceContractError)) as raised:
            list(source.read(offered[name], None, None))
        assert raised.value is offered[name].unavailable
    source.close()


def test_a_file_that_cannot_be_read_holds_up_no_other(opened: Open, bucket: Bucket) -> None:
    """The files after it are read and their cursors pass it by; it is read on, or anew, once it is replaced."""
    first = b"n\n" + b"".join(b"%d\n" % n for n in range(7))
    bucket.put("in/a.csv", first + b"x,y\n")
    bucket.put("in/b.csv", b"n\n10\n")
    bucket.put("in/c.csv", gzip.compress(b"n\n11\n", mtime=0)[:-4])
    bucket.put("in/d.csv", b"n\n12\n")
    source = opened(
        bucket.path("in/*.csv"), infer=False, schema={"properties": {"n": {"type": "integer"}}}, lookbackHours=0
    )
    seen, cursor = read_until_error(source, None, r"in/a\.csv, line 9.*1 more files could not be read, such as .*in/c")
    assert seen == [*range(6), 10, 12]
    seen, cursor = read_until_error(source, cursor, r"in/a\.csv, line 9")
    assert seen == []
    bucket.put("in/c.csv", b"n\n11\n")
    bucket.put("in/e.csv", b"n\n13\n")
    seen, cursor = read_until_error(source, cursor, r"in/a\.csv, line 9")
    assert sorted(seen) == [11, 13]
    bucket.put("in/a.csv", b"n\n20\n")
    assert [row["n"] for row in rows(source, cursor)] == [20]


def read_until_error(source: FilesObject, cursor: Any, words: str) -> tuple[list[int], Any]:
    """Return what was read before the error, and the last cursor as the registry keeps it."""
    seen = list[int]()
    try:
        for batch in source.read(stream_of(source), None, cursor):
            records, cursor = msgspec.json.decode(msgspec.json.encode((list(rows_of(batch.records)), batch.cursor)))
            seen += [row["n"] for row in records]
    except SourceContractError as error:
        assert re.search(words, error.message)  # noqa: PT017 - the batches before it are wanted, too
        return seen, cursor
    raise AssertionError


def test_a_path_that_matches_nothing_beside_others_is_told(opened: Open, bucket: Bucket) -> None:
    source = opened([bucket.put("in/a.csv", b"n\n1\n"), bucket.path("typo/*.csv")])
    [told] = source.drift([stream_of(source)])
    assert told.stream == "s"
    assert "typo/*.csv; correct the stream's paths" in told.message
    bucket.put("typo/b.csv", b"n\n2\n")
    assert list(source.drift([stream_of(source)])) == []


@pytest.mark.parametrize("seed", range(int(os.environ.get("PENSTOCK_FILES_HISTORIES", "3"))))
def test_whatever_happens_to_the_files_the_last_version_of_each_is_read_and_none_twice(
    opened: Open, bucket: Bucket, seed: int
) -> None:
    """Files are put, overwritten within a second, taken away and put back between reads that break off anywhere."""
    chance = random.Random(seed)
    bucket.put("in/first.csv", b"n\nfirst\n")
    source = opened(bucket.path("in/*.csv"), schema={"properties": {"n": {"type": "string"}}}, infer=False)
    stream, cursor, seen = stream_of(source), None, list[str]()
    there = {"first": "first"}
    for step in range(40):
        name, value = chance.choice("abcdef"), f"{seed}-{step}"
        if chance.random() < 0.7:
            bucket.put(f"in/{name}.csv", f"n\n{value}\n".encode())
            there[name] = value
        elif name in there:
            bucket.client.delete_object(Bucket=bucket.name, Key=f"in/{name}.csv")
            del there[name]
        if chance.random() < 0.4 or step == 39:
            read = list(source.read(stream, None, cursor))
            kept = len(read) if step == 39 else chance.randint(0, len(read))
            for batch in read[:kept]:
                seen += [row["n"] for row in rows_of(batch.records)]
                cursor = msgspec.json.decode(msgspec.json.encode(batch.cursor))
    assert set(there.values()) <= set(seen)
    assert len(seen) == len(set(seen))
