"""`penstock bronze sql`: committed objects as one view of DuckDB's, without what cannot be read.

DuckDB reads the objects' types from all of their records. An object that it refuses is searched for the lines that it
refuses: only these are left out, and named. DuckDB alone decides what it can read, so that no second opinion of ours
can differ from it. Where types leave nothing over, as for a table with columns `x` and `X`, the records are read as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    import duckdb

MOST_BAD_LINES = 100
"""An object with more bad lines is left out whole: each costs a search."""
CHUNK = 1 << 20
TYPED = "format='newline_delimited', union_by_name=true, sample_size=-1, maximum_object_size=1000000000"
AS_JSON = (
    "format='newline_delimited', maximum_object_size=1000000000, columns={id: 'VARCHAR', tenant: 'VARCHAR',"
    " connection: 'VARCHAR', connector: 'VARCHAR', stream: 'VARCHAR', run: 'VARCHAR', seq: 'BIGINT', op: 'VARCHAR',"
    " extracted_at: 'TIMESTAMPTZ', schema_version: 'BIGINT', data: 'JSON'}"
)
REASON = re.compile(r"Malformed JSON in file .*, at byte \d+ in line \d+: (?P<reason>[^.]*)")


@dataclass
class FetchedObjects:
    """Objects on disk, and the reports of what of them cannot be read."""

    files: dict[Path, str] = field(default_factory=dict)
    reports: list[str] = field(default_factory=list)


def unpack(body: bytes, path: Path) -> str:
    """Write an object's lines to a file; return what is wrong with it, whose whole lines are kept."""
    lines = 0
    reader = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True)
    rest = b""
    with path.open("wb") as file:
        try:
            while chunk := reader.read(CHUNK):
                whole, found, rest = (rest + chunk).rpartition(b"\n")
                file.write(whole + found)
                lines += (whole + found).count(b"\n")
        except zstandard.ZstdError:
            return f"it is not zstd, or damaged, behind line {lines}: the lines behind it are left out"
        if rest:
            return f"it breaks off in line {lines + 1}: that line is left out"
    return "" if _is_whole(body) else f"it breaks off behind line {lines}: it is truncated"


def _is_whole(body: bytes) -> bool:
    """Say whether the last frame ends: a stream reader takes a truncated one without an error."""
    left = body
    while left:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            for start in range(0, len(left), CHUNK):
                frame.decompress(left[start : start + CHUNK])
                if frame.eof:
                    break
        except zstandard.ZstdError:
            return False
        if not frame.eof:
            return False
        left = frame.unused_data + left[start + CHUNK :]
    return bool(body)


@dataclass(frozen=True)
class _Judgement:
    """What DuckDB refuses of one object: reasons by line, counted from 0, and whether any line is left."""

    bad: dict[int, str]
    left: bool


class BronzeView:
    """The view `bronze` over objects, in a database of DuckDB's."""

    def __init__(self, database: duckdb.DuckDBPyConnection, scratch: Path) -> None:
        self._database = database
        self._scratch = scratch

    def make(self, loaded: FetchedObjects) -> None:
        """Make the view; lines that DuckDB cannot read are reported and left out."""
        import duckdb

        try:
            self._create(list(loaded.files), TYPED)
        except duckdb.Error:
            judged = {path: self._judge(path, TYPED) for path in loaded.files}
            if not any(lines.left for lines in judged.values()):
                judged = {path: self._judge(path, AS_JSON) for path in loaded.files}
            self._leave_out(loaded, judged)
            self._create_checked(loaded)

    def _create(self, files: Sequence[Path], options: str) -> None:
        listed = json.dumps([str(file) for file in files]).replace('"', "'")  # the names are our own
        self._database.execute(f"CREATE OR REPLACE VIEW bronze AS SELECT * FROM read_json({listed}, {options})")  # noqa: S608

    def _create_checked(self, loaded: FetchedObjects) -> None:
        """Objects that can be read each may have types that cannot be one: then the records stay JSON."""
        import duckdb

        files = list(loaded.files) or [self._empty()]
        try:
            self._create(files, TYPED)
        except duckdb.Error:
            self._create(files, AS_JSON)
            loaded.reports.append(
                "the records have no types in common (two fields of one object may differ by case only), so that"
                " `data` is JSON: data.field works, ->> and CAST give its text and its type; --from narrows the objects"
            )

    def _empty(self) -> Path:
        path = self._scratch / "empty.jsonl"
        path.touch()
        return path

    def _judge(self, path: Path, options: str) -> _Judgement:
        """Find the lines of an object that DuckDB refuses."""
        if self._refusal(path, options) is None:
            return _Judgement({}, left=path.stat().st_size > 0)
        lines, bad = path.read_bytes().split(b"\n"), dict[int, str]()
        for index, reason in self._bad_lines(lines, 0, len(lines), options):
            bad[index] = reason
            if len(bad) > MOST_BAD_LINES:
                return _Judgement(bad, left=False)
        return _Judgement(bad, left=any(line for index, line in enumerate(lines) if index not in bad))

    def _leave_out(self, loaded: FetchedObjects, judged: dict[Path, _Judgement]) -> None:
        for path, found in judged.items():
            key, bad = loaded.files[path], found.bad
            if len(bad) > MOST_BAD_LINES:
                loaded.reports.append(f"{key}: more than {MOST_BAD_LINES} of its lines cannot be read: it is left out")
                del loaded.files[path]
            elif bad:
                loaded.reports += [
                    f"{key}, line {index + 1}: {reason}: it is left out" for index, reason in bad.items()
                ]
                lines = path.read_bytes().split(b"\n")
                path.write_bytes(b"\n".join(line for index, line in enumerate(lines) if index not in bad))

    def _bad_lines(self, lines: Sequence[bytes], start: int, end: int, options: str) -> Iterator[tuple[int, str]]:
        """Yield each line that is refused by itself, found by halving."""
        probe = self._scratch / "probe.jsonl"
        probe.write_bytes(b"\n".join(lines[start:end]))
        reason = self._refusal(probe, options)
        if reason is None:
            return
        if end - start == 1:
            yield start, reason
            return
        middle = (start + end) // 2
        yield from self._bad_lines(lines, start, middle, options)
        yield from self._bad_lines(lines, middle, end, options)

    def _refusal(self, path: Path, options: str) -> str | None:
        """Return why DuckDB cannot read a file, in words without its values; None when it can."""
        import duckdb

        try:
            found = f"read_json('{path}', {options})"
            if options is TYPED:
                self._database.execute(f"SELECT count(*) FROM (DESCRIBE SELECT * FROM {found})")  # noqa: S608
            else:  # without types to find, only a query reads the records
                self._database.execute(f"SELECT max(columns(*)::VARCHAR) FROM {found}").fetchall()  # noqa: S608
        except duckdb.Error as error:
            return reason_of(str(error))
        return None


def reason_of(message: str) -> str:
    """Return DuckDB's reason without the record: its messages quote values."""
    if found := REASON.search(message):
        return f"it is not JSON: {found['reason']}"
    if "recursion depth" in message:
        return "it is nested deeper than DuckDB reads"
    if "uplicate" in message:
        return "two fields of one object have the same name, or names that differ by case only"
    return "DuckDB cannot read it"
