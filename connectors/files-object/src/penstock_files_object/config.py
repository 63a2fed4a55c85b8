"""What a connection may set, and what of it can be seen to be wrong before any request is made."""

from __future__ import annotations

import codecs
import hashlib
from collections import Counter
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

import msgspec
from penstock_sdk import ConfigError

Format = Literal["csv", "jsonl", "parquet"]
Compression = Literal["none", "gzip", "zstd"]
WILDCARDS = "*?"


class CsvOptions(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """How a CSV file is written. `columns` are the names where there is no header."""

    delimiter: str = ","
    header: bool = True
    quote: str = '"'
    encoding: str = "utf-8"
    null_values: list[str] = []
    columns: list[str] = []


class StreamConfig(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """One stream: the files that make it, and how they are written.

    `schema` is a JSON Schema whose properties go before what the sample says; `infer: false` takes no sample.
    """

    name: str
    paths: list[str]
    format: Format
    compression: Literal["auto", "none", "gzip", "zstd"] = "auto"
    csv: CsvOptions = CsvOptions()
    primary_key: list[str] = []
    on_bad_row: Literal["fail", "skip"] = "fail"
    schema: dict[str, Any] = {}
    infer: bool = True

    @property
    def declared(self) -> dict[str, Any]:
        """The properties that the connection declares."""
        return dict(self.schema.get("properties", {}))


class Config(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What a connection may set."""

    streams: list[StreamConfig]
    endpoint: str | None = None
    region: str = "us-east-1"
    base_url: str | None = None
    follow_redirects: bool = False
    lookback_hours: float = 168.0
    batch_rows: int = 2000
    timeout_seconds: float = 30.0


class Credentials(msgspec.Struct, rename="camel"):
    """The Secret's keys: a pair of keys for S3; a user and a password, or a token, for HTTP. All may be left out."""

    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    username: str | None = None
    password: str | None = None
    token: str | None = None


def checked(config: Config) -> Config:
    """Return the config with whole addresses as paths; raises ConfigError that names the field and the remedy."""
    doubles = [name for name, count in Counter(stream.name for stream in config.streams).items() if count > 1]
    if doubles:
        raise ConfigError(f"spec.config.streams: the name {doubles[0]!r} is there more than once")
    streams = [
        _checked_stream(stream, config, f"spec.config.streams[{at}]") for at, stream in enumerate(config.streams)
    ]
    return msgspec.structs.replace(config, streams=streams)


def _checked_stream(stream: StreamConfig, config: Config, where: str) -> StreamConfig:
    if stream.format == "csv":
        _check_csv(stream.csv, f"{where}.csv")
    if stream.format == "parquet" and stream.compression != "auto":
        raise ConfigError(f"{where}.compression: Parquet compresses within the file; leave it out")
    if not isinstance(stream.schema.get("properties", {}), dict):
        raise ConfigError(f"{where}.schema.properties: must be an object of schemas by field")
    paths = [_whole(path, config, f"{where}.paths[{at}]") for at, path in enumerate(stream.paths)]
    return msgspec.structs.replace(stream, paths=list(dict.fromkeys(paths)))


def _check_csv(options: CsvOptions, where: str) -> None:
    for field in ("delimiter", "quote"):
        if len(getattr(options, field)) != 1 or getattr(options, field) in "\r\n":
            raise ConfigError(f"{where}.{field}: must be one character, and no line break")
    if options.delimiter == options.quote:
        raise ConfigError(f"{where}: delimiter and quote must differ")
    if options.header and options.columns:
        raise ConfigError(f"{where}.columns: names the columns of files without a header; set header: false")
    try:
        known = isinstance(codecs.getincrementaldecoder(options.encoding)("strict").decode(b"", final=True), str)
    except LookupError:
        known = False
    if not known:
        raise ConfigError(f"{where}.encoding: {options.encoding!r} is not an encoding that Python knows, such as utf-8")


def _whole(path: str, config: Config, where: str) -> str:
    """Return a path as a whole address, and hold those over HTTP to the one server that the connection names."""
    if path.startswith("s3://"):
        bucket, _, key = path.removeprefix("s3://").partition("/")
        if not bucket or not key or any(mark in bucket for mark in WILDCARDS):
            raise ConfigError(f"{where}: {path!r} must be s3://bucket/key, where the key may hold *, ** and ?")
        return path
    if not config.base_url:
        raise ConfigError(f"{where}: {path!r} is found over HTTP: name its server in spec.config.baseUrl")
    address = urljoin(config.base_url, path)
    if origin(address) != origin(config.base_url):
        raise ConfigError(
            f"{where}: {origin(address)} is not the server of spec.config.baseUrl; use a connection for each"
        )
    return address


def origin(address: str) -> str:
    """Return scheme, host and port."""
    parts = urlsplit(address)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def shown(path: str) -> str:
    """Return a path as messages and cursors hold it: what stands after an address's `?` may be a signature."""
    head, mark, query = path.partition("?")
    if not mark or path.startswith("s3://"):
        return path
    return f"{head}?{hashlib.blake2b(query.encode(), digest_size=4).hexdigest()}"
