"""files-object over many runs of a bucket that changes: each version of a file once, whatever breaks, stops or is replaced.

The oracle knows which rows each version of a file has, and nothing of cursors. PENSTOCK_FUZZ_SEEDS makes it try more,
from the seed PENSTOCK_FUZZ_FIRST_SEED on.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from penstock_files_object import FilesObject
from penstock_files_object.config import FilesConfig, FilesCredentials
from penstock_sdk import ConnectorError, SourceContractError
from penstock_sdk.contract import rows_of

from tests.integration.connectors.files_server import FilesServer, Kept, serving

SEEDS = range(int(os.environ.get("PENSTOCK_FUZZ_SEEDS", "8")))
FIRST_SEED = int(os.environ.get("PENSTOCK_FUZZ_FIRST_SEED", "0"))
LARGE_PAD = "x" * 30_000
TEXTS = [
    "",
    "a",
    "é",
    "\n",
    '"',
    ",",
    "null",
    "0",
    "1e5",
    " x ",
    "\u2028",
    "a\r\nb",
    "\U0001f600",
    "'",
    "\\",
    "\t",
    "=1+1",
    "x" * 300,
]


@pytest.fixture(scope="module")
def running() -> Iterator[FilesServer]:
    with serving() as server:
        yield server


@dataclass
class Bucket:
    """What lies in the store, and what a reader of Bronze is to find of it."""

    server: FilesServer
    format: str
    chance: random.Random
    is_listed: bool
    versions: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """By name and version: the rows."""
    current: dict[str, str] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)
    number: int = 0
    clock: int = 1000

    def put(self, name: str) -> None:
        """Write a file, often within the same second as others."""
        self.clock += self.chance.choice([0, 0, 0, 1, 5])
        rows = []
        for _ in range(self.chance.choice([0, 1, 2, 7, 30])):
            self.number += 1
            rows.append((str(self.number), self.chance.choice(TEXTS)))
        body = self._written(rows)
        self.server.put(f"b/{name}", body, self.clock)
        self.server.files[f"/b/{name}"] = OfS3(body, self.server.files[f"/b/{name}"].modified)
        version = self.server.files[f"/b/{name}"].etag
        self.versions.setdefault(name, {})[version] = [json.dumps(row) for row in rows]
        self.current[name] = version

    def again(self, name: str) -> None:
        """Write the same content anew: its version, as S3 has it, stays."""
        file = self.server.files[f"/b/{name}"]
        self.clock += 1
        self.server.files[f"/b/{name}"] = OfS3(file.body, file.modified + 1)

    def list(self) -> None:
        entry = "<Contents><Key>{}</Key><Size>{}</Size><ETag>{}</ETag><LastModified>{}</LastModified></Contents>"
        listed = [
            entry.format(
                name,
                len(file.body),
                file.etag.replace('"', "&quot;"),
                datetime.fromtimestamp(file.modified, UTC).isoformat(),
            )
            for name, file in ((name, self.server.files[f"/b/{name}"]) for name in self.current)
        ]
        self.chance.shuffle(listed)
        self.server.put("b", f"<ListBucketResult>{''.join(listed)}</ListBucketResult>".encode())

    def _written(self, rows: list[tuple[str, str]]) -> bytes:
        pad = LARGE_PAD if self.chance.random() < 0.3 else ""
        if self.format == "parquet":
            table = pa.table(
                {"n": [n for n, _ in rows], "t": [t for _, t in rows]},
                pa.schema([("n", pa.string()), ("t", pa.string())]),
            )
            sink = io.BytesIO()
            pq.write_table(
                table,
                sink,
                row_group_size=self.chance.choice([1, 3, 100]),
                compression=self.chance.choice(["NONE", "ZSTD", "GZIP"]),
            )
            return sink.getvalue()
        if self.format == "jsonl":
            body = "".join(
                json.dumps({"n": n, "t": t, "pad": pad}, ensure_ascii=self.chance.random() < 0.5) + "\n"
                for n, t in rows
            ).encode()
        else:
            text = io.StringIO(newline="")
            ending = self.chance.choice(["\n", "\r\n"])
            csv.writer(text, lineterminator=ending, quoting=csv.QUOTE_ALL).writerows(
                [["n", "t", "pad"], *((n, t, pad) for n, t in rows)]
            )
            body = text.getvalue().encode()
        kind = self.chance.choice(["none", "none", "gzip", "zstd", "members"])
        if kind == "gzip":
            return gzip.compress(body, mtime=self.number)
        if kind == "zstd":
            return zstandard.ZstdCompressor().compress(body)
        if kind == "members":
            at = self.chance.randint(0, len(body))
            return gzip.compress(body[:at], mtime=0) + gzip.compress(body[at:], mtime=0)
        return body


class OfS3(Kept):
    """A file whose version is a digest of its content alone."""

    @property
    def etag(self) -> str:  # type: ignore[override]
        return f'"{hashlib.md5(self.body, usedforsecurity=False).hexdigest()}"'


def connector(bucket: Bucket) -> FilesObject:
    server = bucket.server
    declared = {
        "infer": False,
        "schema": {"properties": {"n": {"type": ["string", "null"]}, "t": {"type": ["string", "null"]}}},
    }
    paths = ["s3://b/**"] if bucket.is_listed else [f"s3://b/{name}" for name in ("f0", "f1", "f2", "f3")]
    stream = {"name": "s", "paths": paths, "format": bucket.format, **declared}
    config = {
        "endpoint": server.url,
        "baseUrl": server.url,
        "batchRows": bucket.chance.choice([1, 2, 5, 1000]),
        "streams": [stream],
    }
    return FilesObject(msgspec.convert(config, FilesConfig), FilesCredentials())


def run(bucket: Bucket, cursor: Any, *, spoil: bool) -> tuple[Any, bool]:
    """Do one attempt; returns where it stands, and whether it came to its end."""
    chance, server = bucket.chance, bucket.server
    server.break_after = [chance.randint(0, 40_000) for _ in range(chance.randint(0, 3))] if spoil else []
    server.statuses = [(200, {})] * 0
    stop_after = chance.randint(0, 12) if spoil and chance.random() < 0.5 else None
    replace_after = chance.randint(0, 6) if spoil and chance.random() < 0.4 else None
    source = connector(bucket)
    try:
        source.authenticate()
        [stream] = source.discover()
        for place, batch in enumerate(source.read(stream, None, cursor)):
            read = [json.dumps((row["n"], row["t"] or "")) for row in rows_of(batch.records)]
            bucket.read += read
            cursor = msgspec.json.decode(msgspec.json.encode(batch.cursor))
            if place == stop_after:
                return cursor, False
            if place == replace_after:
                bucket.put(chance.choice(list(bucket.current)))
                bucket.list()
    except ConnectorError as error:
        if not spoil or isinstance(error, SourceContractError):
            raise
        return cursor, False
    finally:
        source.close()
        server.break_after = []
    return cursor, True


@pytest.mark.parametrize("seed", [FIRST_SEED + seed for seed in SEEDS])
def test_each_version_of_a_file_is_read_once_over_many_runs(running: FilesServer, seed: int) -> None:
    running.__dict__.update(FilesServer(port=running.port).__dict__)
    chance = random.Random(seed)
    bucket = Bucket(running, chance.choice(["csv", "jsonl", "parquet"]), chance, is_listed=chance.random() < 0.7)
    bucket.put("f0")
    cursor: Any = None
    for _ in range(chance.randint(2, 8)):
        for _ in range(chance.randint(0, 3)):
            name = f"f{chance.randint(0, 3)}"
            with suppress(KeyError):
                (bucket.again if name in bucket.current and chance.random() < 0.2 else bucket.put)(name)
        bucket.list()
        cursor, _ = run(bucket, cursor, spoil=True)
    for _ in range(2):
        bucket.list()
        cursor, ended = run(bucket, cursor, spoil=False)
        assert ended
        before = len(bucket.read)
    cursor, ended = run(bucket, cursor, spoil=False)
    assert ended
    assert len(bucket.read) == before, "nothing is read twice"
    counted = Counter(bucket.read)
    assert all(times == 1 for times in counted.values()), [row for row, times in counted.items() if times > 1]
    for name, version in bucket.current.items():
        missing = [row for row in bucket.versions[name][version] if row not in counted]
        assert not missing, (name, missing)
    known = {row for versions in bucket.versions.values() for rows in versions.values() for row in rows}
    assert counted.keys() <= known
