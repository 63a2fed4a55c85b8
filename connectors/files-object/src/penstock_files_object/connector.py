"""The connector: reads files in the order of their last change, and follows each with a cursor that identifies it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from functools import partial

import msgspec
from penstock_sdk import (
    AuthenticationError,
    Batch,
    Connector,
    ConnectorError,
    Cursor,
    Drift,
    Estimate,
    Records,
    SourceContractError,
    Stream,
    TransientError,
)
from penstock_sdk.json_types import JsonValue, properties_of

from penstock_files_object.bad_rows import BadRows
from penstock_files_object.config import FilesConfig, FilesCredentials, StreamConfig, display_path, validated
from penstock_files_object.csv_rows import CsvFile, csv_batches
from penstock_files_object.file_cursor import File, FileOffset, FilesCursor, PartialFile, path_cursors_to_json
from penstock_files_object.jsonl_rows import JsonlFile
from penstock_files_object.listing import compile_pattern, list_files
from penstock_files_object.parquet_rows import ParquetFile
from penstock_files_object.partial_files import FailedFiles, PartialFiles
from penstock_files_object.schema_inference import infer_schema
from penstock_files_object.transport import Transport

log = logging.getLogger("penstock")
HOUR_MILLISECONDS = 3_600_000
MOST_ACCESS_CHECKS = 5
"""Buckets, or addresses, that are requested before a store counts as refusing the credentials."""
ROW_END_OPTIONS: dict[str, int | str] = {"skip_rows": 0, "escape": ""}
"""CSV options that decide where a row ends, with their defaults. Only other values are in a cursor: older cursors, which
do not have these options, stay valid."""


def parse_options_of(stream: StreamConfig) -> str:
    """Return the options that decide how a file is parsed; an offset within a file is valid for the same options only."""
    options = f"{stream.format} {stream.compression} {stream.csv.encoding}"
    changed = {
        name: getattr(stream.csv, name)
        for name, default in ROW_END_OPTIONS.items()
        if getattr(stream.csv, name) != default
    }
    return f"{options} {changed}" if stream.format == "csv" and changed else options


class FilesObject(Connector[FilesConfig, FilesCredentials]):
    """Reads files from S3 or over HTTP."""

    _transport: Transport | None = None

    def authenticate(self) -> None:
        """Check the config, and check that each store accepts the credentials."""
        self.config = validated(self.config)
        self._transport = Transport(self.config, self.credentials)
        paths = [path for stream in self.config.streams for path in stream.paths]
        for is_s3 in (True, False):
            self._check_access([path for path in paths if path.startswith("s3://") == is_s3])

    def _check_access(self, paths: list[str]) -> None:
        """Request one path of each bucket until the store answers. Raises the first error if it refuses them all.

        A wrong path, and a store that cannot be reached, concern single streams: `discover` reports them.
        """
        first_paths = {path.split("/")[2] if path.startswith("s3://") else path: path for path in reversed(paths)}
        errors = list[ConnectorError]()
        for path in list(reversed(first_paths.values()))[:MOST_ACCESS_CHECKS]:
            try:
                next(list_files(self._store, path), None)
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
        """Return the streams of the config, with schemas that are inferred from a sample of their files."""
        for stream_config in self.config.streams:
            try:
                stream = self._discover_stream(stream_config)
            except ConnectorError as error:
                log.warning("stream %r is unavailable: %s", stream_config.name, error.message)
                stream = Stream(
                    name=stream_config.name,
                    schema={"type": "object"},
                    modes=("full", "incremental"),
                    unavailable=error,
                )
            yield stream

    def drift(self, streams: Sequence[Stream]) -> Iterator[Drift]:
        """Report paths that match no file, if the stream has other files or declares its schema."""
        readable = {stream.name for stream in streams if not stream.unavailable}
        for stream in self.config.streams:
            if stream.name in readable and (paths := self._empty_paths(stream)):
                yield Drift(
                    stream=stream.name,
                    message=f"stream {stream.name!r}: no file matches {', '.join(map(display_path, paths))}; correct the"
                    " stream's paths, unless files are still to come",
                )

    def _empty_paths(self, stream: StreamConfig) -> list[str]:
        """Return the paths that match no file; none if one cannot be listed, as the read reports that."""
        try:
            return [path for path in stream.paths if next(list_files(self._store, path), None) is None]
        except ConnectorError:
            return []

    def _discover_stream(self, stream: StreamConfig) -> Stream:
        files = (file for path in stream.paths for file in self._files(stream, path))
        return Stream(
            name=stream.name,
            schema=infer_schema(self._store, stream, files),
            primary_key=tuple(stream.primary_key),
            modes=("full", "incremental") if self._is_followable(stream) else ("full",),
        )

    def _is_followable(self, stream: StreamConfig) -> bool:
        """Return True if changes of each file can be seen. Some HTTP servers send neither ETag nor Last-Modified."""
        http_paths = (path for path in stream.paths if not path.startswith("s3://"))
        return all(file.followable for path in http_paths for file in list_files(self._store, path))

    def _files(self, stream: StreamConfig, path: str) -> Iterator[File]:
        """Yield the files of a path, without those that an earlier path of the stream matches."""
        earlier_paths = stream.paths[: stream.paths.index(path)]
        patterns = [compile_pattern(earlier) for earlier in earlier_paths if earlier.startswith("s3://")]
        for file in list_files(self._store, path):
            if not any(pattern.fullmatch(file.path) for pattern in patterns):
                yield file

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Iterator[Batch]:
        """Yield the records of files that are new, or have changed, since the cursor; one file after the other."""
        if stream.unavailable:
            raise stream.unavailable
        config = self._config_of(stream.name)
        files_cursor = self._parse_cursor(cursor)
        oldest = None if since is None else int(since.timestamp() * 1000)
        configured = {display_path(path) for path in config.paths}
        path_cursors = {path: value for path, value in files_cursor.path_cursors.items() if path in configured}
        partial_files, failed = PartialFiles(files_cursor), FailedFiles()
        for path in config.paths:
            path_cursor, first_failed = files_cursor.path_cursor(path, oldest), None
            for file in path_cursor.pending(self._files(config, path)):
                try:
                    yield from self._batches(config, stream, file, partial_files, path_cursors_to_json(path_cursors))
                except (SourceContractError, TransientError, AuthenticationError) as error:
                    if isinstance(error, AuthenticationError) and not file.path.startswith("s3://"):
                        raise  # S3 may refuse one object; an HTTP server may lock an account after repeated refusals
                    failed.add(file, error)
                    first_failed = first_failed or file.order
                    continue
                partial_files.finish(file)
                lookback = int(self.config.lookback_hours * HOUR_MILLISECONDS)
                path_cursor = path_cursor.after(file, lookback, first_failed=first_failed)
                path_cursors[display_path(path)] = path_cursor
                yield Batch([], cursor={"marks": path_cursors_to_json(path_cursors), **partial_files.to_json()})
                if first_failed and path_cursor.is_full:
                    failed.raise_first()
            if path_cursor.is_full:
                log.warning(
                    "stream %r: %s: the cursor keeps no more than the newest %d files that were read; a late file that is"
                    " older than these is not read: lower lookbackHours, or name the files by more paths",
                    stream.name,
                    display_path(path),
                    len(path_cursor.read),
                )
        failed.raise_first()

    def _config_of(self, name: str) -> StreamConfig:
        for stream in self.config.streams:
            if stream.name == name:
                return stream
        raise SourceContractError(
            f"stream {name!r}: spec.config.streams does not have it any more; add it there, or remove it from spec.streams"
        )

    def _parse_cursor(self, cursor: Cursor | None) -> FilesCursor:
        try:
            return FilesCursor.parse(cursor)
        except msgspec.ValidationError as error:
            raise SourceContractError(
                f"the state cannot be read; this connector did not make it ({error}): reset the state"
            ) from None

    def _batches(
        self, config: StreamConfig, stream: Stream, file: File, partial_files: PartialFiles, path_cursors: JsonValue
    ) -> Iterator[Batch]:
        parse_options = parse_options_of(config)
        bad_rows = BadRows(config.name, file.name, config.on_bad_row, self.reject)
        start = partial_files.offset(file, parse_options)
        for records, offset in self._read_file(config, stream, file, start, bad_rows):
            current = PartialFile(file.name, file.version, parse_options, offset)
            yield Batch(records, cursor={"marks": path_cursors, **partial_files.to_json(current)})
        bad_rows.close()

    def _read_file(
        self, config: StreamConfig, stream: Stream, file: File, start: FileOffset | None, bad_rows: BadRows
    ) -> Iterator[tuple[Records, FileOffset]]:
        properties, size = properties_of(stream.schema), self.config.batch_rows
        open_content = partial(self._store.content, file)
        if config.format == "parquet":
            parquet = ParquetFile(config, file, self._store, replace(bad_rows, unit="row"))
            yield from parquet.batches(properties, start, size)
        elif config.format == "csv":
            with closing(CsvFile(config, file, open_content, bad_rows)) as csv_file:
                yield from csv_batches(csv_file, properties, start, size)
        else:
            with closing(JsonlFile(config, file, open_content, bad_rows)) as jsonl_file:
                yield from jsonl_file.pages(start, size)

    def estimate(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Estimate:
        """Return the number of files to read, as each takes at least one request, and their size as they are stored."""
        config, files_cursor = self._config_of(stream.name), self._parse_cursor(cursor)
        oldest = None if since is None else int(since.timestamp() * 1000)
        pending = [
            file
            for path in config.paths
            for file in files_cursor.path_cursor(path, oldest).pending(self._files(config, path))
        ]
        sizes = [file.size for file in pending]
        return Estimate(bytes=None if None in sizes else sum(size or 0 for size in sizes), api_calls=len(pending))

    def close(self) -> None:
        """Close the connections to the stores."""
        if self._transport is not None:
            self._transport.close()
