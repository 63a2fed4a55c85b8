"""What a connection may set, and what of it can be seen to be wrong before any request is made."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections import Counter
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

import msgspec
from penstock_sdk import ConfigError

Format = Literal["csv", "jsonl", "parquet"]
Compression = Literal["none", "gzip", "zstd"]
WILDCARDS = "*?"
LONGEST_LOOKBACK_HOURS = 876_000
"""A hundred years: more would be more than a moment in milliseconds is meant for."""


class CsvOptions(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """How a CSV file is written. `columns` are the names where there is no header.

    `skip_rows` counts the lines before the header, blank ones included. An empty `quote` has quotes be text like any
    other; an empty `escape` has a quote within quotes be doubled.
    """

    delimiter: str = ","
    header: bool = True
    quote: str = '"'
    encoding: str = "utf-8"
    null_values: list[str] = []
    columns: list[str] = []
    skip_rows: int = 0
    duplicate_headers: Literal["refuse", "rename"] = "refuse"
    escape: str = ""


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
    if not re.fullmatch(r"[A-Za-z0-9-]+", config.region):
        raise ConfigError("spec.config.region: must be a region's name, such as eu-west-3")
    if config.endpoint is not None:
        _origin(config.endpoint, "spec.config.endpoint")
    if not 0 <= config.lookback_hours <= LONGEST_LOOKBACK_HOURS:
        raise ConfigError(f"spec.config.lookbackHours: must be from 0 to {LONGEST_LOOKBACK_HOURS}")
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
    _check_schema(stream.schema, f"{where}.schema")
    paths = [_whole(path, config, f"{where}.paths[{at}]") for at, path in enumerate(stream.paths)]
    return msgspec.structs.replace(stream, paths=list(dict.fromkeys(paths)))


def _check_csv(options: CsvOptions, where: str) -> None:
    for field, least in (("delimiter", 1), ("quote", 0), ("escape", 0)):
        text = getattr(options, field)
        if not least <= len(text) <= 1 or text in ("\r", "\n"):
            raise ConfigError(f"{where}.{field}: must be one character, and no line break")
    marks = [mark for mark in (options.delimiter, options.quote, options.escape) if mark]
    if len(set(marks)) < len(marks):
        raise ConfigError(f"{where}: delimiter and quote must differ, and escape from both")
    if options.header and options.columns:
        raise ConfigError(f"{where}.columns: names the columns of files without a header; set header: false")
    doubles = [name for name, count in Counter(options.columns).items() if count > 1]
    if doubles:
        raise ConfigError(f"{where}.columns: the name {doubles[0]!r} is there more than once")
    if options.skip_rows < 0:
        raise ConfigError(f"{where}.skipRows: must be 0 or more")
    if not _is_text_encoding(options.encoding):
        raise ConfigError(f"{where}.encoding: {options.encoding!r} is not an encoding that Python knows, such as utf-8")


def _is_text_encoding(name: str) -> bool:
    """Say whether Python turns bytes into text by that name; some of its codecs make bytes of bytes, or text of text."""
    try:
        decoder = codecs.getincrementaldecoder(name)("strict")
        return isinstance(decoder.decode(b"a" * 8), str) and codecs.lookup(name)._is_text_encoding  # noqa: SLF001
    except Exception:  # noqa: BLE001 - what a codec that is not of text raises is its own affair
        return False


JSON_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


def _check_schema(schema: dict[str, Any], where: str) -> None:
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        raise ConfigError(f"{where}.properties: must be an object of schemas by field")
    for name, declared in properties.items():
        types = declared.get("type", []) if isinstance(declared, dict) else None
        if types is None:
            raise ConfigError(f"{where}.properties.{name}: must be a schema, such as {{type: string}}")
        for each in types if isinstance(types, list) else [types]:
            if each not in JSON_TYPES:
                raise ConfigError(f"{where}.properties.{name}.type: must be of {', '.join(JSON_TYPES)}")


def _whole(path: str, config: Config, where: str) -> str:
    """Return a path as a whole address, and hold those over HTTP to the one server that the connection names."""
    if path.startswith("s3://"):
        bucket, _, key = path.removeprefix("s3://").partition("/")
        if not bucket or not key or any(mark in bucket for mark in WILDCARDS):
            raise ConfigError(f"{where}: {path!r} must be s3://bucket/key, where the key may hold *, ** and ?")
        return path
    if not config.base_url:
        raise ConfigError(f"{where}: {path!r} is found over HTTP: name its server in spec.config.baseUrl")
    base = _origin(config.base_url, "spec.config.baseUrl")
    try:
        address = urljoin(config.base_url, path)
    except ValueError:
        address = ""
    if _origin(address, where) != base:
        raise ConfigError(
            f"{where}: {origin(address)} is not the server of spec.config.baseUrl; use a connection for each"
        )
    return address


def _origin(address: str, where: str) -> str:
    try:
        found, host = origin(address), urlsplit(address).hostname
    except ValueError:
        host = None
    if not host:
        raise ConfigError(f"{where}: it is not an address such as https://files.example.com/exports/")
    return found


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
