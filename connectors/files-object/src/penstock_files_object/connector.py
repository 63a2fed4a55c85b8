"""The connector: files in the order of their last change, each followed by a cursor that tells it from all others."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
from penstock_sdk import (
    AuthenticationError,
    Batch,
    Connector,
    ConnectorError,
    Cursor,
    Drift,
    Estimate,
    SourceContractError,
    Stream,
    TransientError,
)

from penstock_files_object.config import Config, Credentials, StreamConfig, checked, shown
from penstock_files_object.csv_rows import CsvFile, csv_batches
from penstock_files_object.jsonl_rows import JsonlFile
from penstock_files_object.parquet_rows import ParquetFile
from penstock_files_object.partly_read import PartlyRead, UnreadableFiles
from penstock_files_object.progress import File, Progress, Within, cursor_of
from penstock_files_object.rejects import BadRows
from penstock_files_object.sample import schema_of
from penstock_files_object.stores import files, matcher
from penstock_files_object.transport import Transport

log = logging.getLogger("penstock")
HOUR = 3_600_000
MOST_ASKED = 5
"""Buckets, or addresses, that a store is asked for before it counts as letting nobody in."""
Position = dict[str, int]
DIALECT: dict[str, Any] = {"skip_rows": 0, "escape": ""}
"""Defaults of options that decide where a row ends; a cursor names those that differ, so older cursors stay good."""


def way_of(stream: StreamConfig) -> str:
    """Return how the stream's files are read: a place within a file means something only if they are read the same way."""
    way = f"{stream.format} {stream.compression} {stream.csv.encoding}"
    changed = {name: getattr(stream.csv, name) for name in DIALECT if getattr(stream.csv, name) != DIALECT[name]}
    return f"{way} {changed}" if stream.format == "csv" and changed else way


class FilesObject(Connector[Config, Credentials]):
    """Reads files."""

    _transport: Transport | None = None

    def authenticate(self) -> None:
        """Check the config, and see that each store lets these credentials in."""
        self.config = checked(self.config)
        self._transport = Transport(self.config, self.credentials)
        paths = [path for stream in self.config.streams for path in stream.paths]
        for is_s3 in (True, False):
            self._let_in([path for path in paths if path.startswith("s3://") == is_s3])

    def _let_in(self, paths: list[str]) -> None:
        """Ask one store for a path of each bucket until it answers; raise what it says if it lets in for none.

        A path that is wrong, or a store that is away, is its streams' own affair: `discover` says so.
        """
        of_each = {path.split("/")[2] if path.startswith("s3://") else path: path for path in reversed(paths)}
        errors = list[ConnectorError]()
        for path in list(reversed(of_each.values()))[:MOST_ASKED]:
            try:
                next(files(self._store, path), None)
            except TransientError:
                return
            except ConnectorError as error:
                errors.append(error)
            else:
                return
        if errors and all(isinstance(error, AuthenticationError) for error in errors):
            raise errors[0]

    @property
    def _store(self) -> Transport:
        if self._transport is None:
            message = "authenticate() comes before discover() and read()"
            raise RuntimeError(message)
        return self._transport

    def discover(self) -> Iterator[Stream]:
        """Return the streams of the config, with what a sample of their files shows."""
        for stream in self.config.streams:
            try:
                found = self._offered(stream)
            except ConnectorError as error:
                log.warning("stream %r is unavailable: %s", stream.name, error.message)
                found = Stream(
                    name=stream.name,
                    schema={"type": "object"},
                    modes=("full", "incremental"),
                    unavailable=error,
                )
            yield found

    def drift(self, streams: Sequence[Stream]) -> Iterator[Drift]:
        """Tell of the paths that match no file, where the stream has others or declares its schema."""
        readable = {stream.name for stream in streams if not stream.unavailable}
        for stream in self.config.streams:
            if stream.name in readable and (paths := self._empty_paths(stream)):
                yield Drift(
                    stream=stream.name,
                    message=f"stream {stream.name!r}: no file matches {', '.join(map(shown, paths))}; correct the stream's"
                    " paths, unless files are still to come",
                )

    def _empty_paths(self, stream: StreamConfig) -> list[str]:
        """Return the paths that match nothing; one that cannot be listed is told of by the read."""
        try:
            return [path for path in stream.paths if next(files(self._store, path), None) is None]
        except ConnectorError:
            return []

    def _offered(self, stream: StreamConfig) -> Stream:
        schema = schema_of(self._store, stream, (file for path in stream.paths for file in self._files(stream, path)))
        return Stream(
            name=stream.name,
            schema=schema,
            primary_key=tuple(stream.primary_key),
            modes=("full", "incremental") if self._is_followable(stream) else ("full",),
        )

    def _is_followable(self, stream: StreamConfig) -> bool:
        """Say whether a changed file can be told from the one that was read: every store says so but some HTTP servers."""
        over_http = (path for path in stream.paths if not path.startswith("s3://"))
        return all(file.followable for path in over_http for file in files(self._store, path))

    def _files(self, stream: StreamConfig, path: str) -> Iterator[File]:
        """Yield a path's files, but for those that an earlier path of the stream has too."""
        earlier = stream.paths[: stream.paths.index(path)]
        patterns = [matcher(each) for each in earlier if each.startswith("s3://")]
        for file in files(self._store, path):
            if not any(pattern.fullmatch(file.path) for pattern in patterns):
                yield file

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Iterator[Batch]:
        """Yield the records of the files that are new, or changed, since the cursor, file by file."""
        if stream.unavailable:
            raise stream.unavailable
        config = self._config_of(stream.name)
        progress = self._progress(cursor)
        oldest = None if since is None else int(since.timestamp() * 1000)
        known = {shown(path) for path in config.paths}
        marks = {path: mark for path, mark in progress.marks.items() if path in known}
        partly, unreadable = PartlyRead(progress), UnreadableFiles()
        for path in config.paths:
            mark, first_unreadable = progress.mark(path, oldest), None
            for file in mark.pending(self._files(config, path)):
                try:
                    yield from self._batches(config, stream, file, partly, cursor_of(marks))
                except (SourceContractError, TransientError, AuthenticationError) as error:
                    if isinstance(error, AuthenticationError) and not file.path.startswith("s3://"):
                        raise  # S3 refuses single objects; a password that is sent over and over locks an account
                    unreadable.take(file, error)
                    first_unreadable = first_unreadable or file.place
                    continue
                partly.finish(file)
                mark = mark.after(file, int(self.config.lookback_hours * HOUR), unreadable=first_unreadable)
                marks[shown(path)] = mark
                yield Batch([], cursor={"marks": cursor_of(marks), **partly.cursor()})
                if first_unreadable and mark.is_full:
                    unreadable.tell()
            if mark.is_full:
                log.warning(
                    "stream %r: %s: the cursor remembers the newest %d files read and no more; a file that comes late and is"
                    " older than these is passed over: lower lookbackHours, or name the files by more paths",
                    stream.name,
                    shown(path),
                    len(mark.read),
                )
        unreadable.tell()

    def _config_of(self, name: str) -> StreamConfig:
        for stream in self.config.streams:
            if stream.name == name:
                return stream
        raise SourceContractError(f"stream {name!r}: spec.config.streams does not hold it any more")

    def _progress(self, cursor: Cursor | None) -> Progress:
        try:
            return Progress.of(cursor)
        except msgspec.ValidationError as error:
            raise SourceContractError(f"the state is not one that this connector made ({error}): reset it") from None

    def _batches(
        self, config: StreamConfig, stream: Stream, file: File, partly: PartlyRead, marks: dict[str, Any]
    ) -> Iterator[Batch]:
        way = way_of(config)
        bad = BadRows(config.name, file.name, config.on_bad_row, self.reject)
        for records, at in self._read(config, stream, file, partly.at(file, way), bad):
            within = Within(file.name, file.version, way, at)
            yield Batch(records, cursor={"marks": marks, **partly.cursor(within)})
        bad.close()

    def _read(
        self, config: StreamConfig, stream: Stream, file: File, at: Position | None, bad: BadRows
    ) -> Iterator[tuple[Any, Position]]:
        properties, size = stream.schema.get("properties", {}), self.config.batch_rows
        opened = partial(self._store.content, file)
        if config.format == "parquet":
            yield from ParquetFile(config, file, self._store, replace(bad, unit="row")).batches(properties, at, size)
        elif config.format == "csv":
            with closing(CsvFile(config, file, opened, bad)) as reading:
                yield from csv_batches(reading, properties, at, size)
        else:
            with closing(JsonlFile(config, file, opened, bad)) as lines:
                yield from lines.pages(at, size)

    def estimate(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Estimate:
        """Say how many files are still to be read, one request each at least, and how large they are as they lie there."""
        config, progress = self._config_of(stream.name), self._progress(cursor)
        oldest = None if since is None else int(since.timestamp() * 1000)
        pending = [
            file for path in config.paths for file in progress.mark(path, oldest).pending(self._files(config, path))
        ]
        sizes = [file.size for file in pending]
        return Estimate(bytes=None if None in sizes else sum(size or 0 for size in sizes), api_calls=len(pending))

    def close(self) -> None:
        """Close the connections."""
        if self._transport is not None:
            self._transport.close()
