"""The options in `spec.config`, the Secret's keys, and the checks that need no request."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections import Counter
from typing import Literal
from urllib.parse import urljoin, urlsplit

import msgspec
from penstock_sdk import ConfigError
from penstock_sdk.json_types import JsonSchema, properties_of

Format = Literal["csv", "jsonl", "parquet"]
Compression = Literal["none", "gzip", "zstd"]
WILDCARDS = "*?"
LONGEST_LOOKBACK_HOURS = 876_000
"""A hundred years: with more, times in milliseconds would be out of range."""


class CsvOptions(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """The dialect of a CSV file. `columns` has the column names of files without a header.

    `skip_rows` is the number of lines before the header, including blank ones. With an empty `quote`, quotes are ordinary
    characters. With an empty `escape`, a quote within quotes is doubled.
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
    """A stream: the paths of its files, and their format.

    `schema` is a JSON Schema; its properties replace those inferred from a sample. `infer: false` takes no sample.
    """

    name: str
    paths: list[str]
    format: Format
    compression: Literal["auto", "none", "gzip", "zstd"] = "auto"
    csv: CsvOptions = CsvOptions()
    primary_key: list[str] = []
    on_bad_row: Literal["fail", "skip"] = "fail"
    schema: JsonSchema = {}
    infer: bool = True

    @property
    def declared(self) -> dict[str, JsonSchema]:
        """The properties that the connection declares in `schema`."""
        return properties_of(self.schema)


class FilesConfig(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The options in `spec.config`; connector.yaml describes each."""

    streams: list[StreamConfig]
    endpoint: str | None = None
    region: str = "us-east-1"
    base_url: str | None = None
    follow_redirects: bool = False
    lookback_hours: float = 168.0
    batch_rows: int = 2000
    timeout_seconds: float = 30.0


class FilesCredentials(msgspec.Struct, rename="camel"):
    """The Secret's keys: an access key and its secret for S3; user and password, or a token, for HTTP. All are optional."""

    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    username: str | None = None
    password: str | None = None
    token: str | None = None


def validated(config: FilesConfig) -> FilesConfig:
    """Return the config with complete addresses as paths. Raises ConfigError that names the field and the remedy."""
    if not re.fullmatch(r"[A-Za-z0-9-]+", config.region):
        raise ConfigError("spec.config.region: it must be a region's name, such as eu-west-3")
    if config.endpoint is not None:
        _origin(config.endpoint, "spec.config.endpoint")
    if not 0 <= config.lookback_hours <= LONGEST_LOOKBACK_HOURS:
        raise ConfigError(f"spec.config.lookbackHours: it must be from 0 to {LONGEST_LOOKBACK_HOURS}")
    duplicates = [name for name, count in Counter(stream.name for stream in config.streams).items() if count > 1]
    if duplicates:
        raise ConfigError(f"spec.config.streams: two streams have the name {duplicates[0]!r}; rename one")
    streams = [
        _validated_stream(stream, config, f"spec.config.streams[{at}]") for at, stream in enumerate(config.streams)
    ]
    return msgspec.structs.replace(config, streams=streams)


def _validated_stream(stream: StreamConfig, config: FilesConfig, where: str) -> StreamConfig:
    if stream.format == "csv":
        _check_csv(stream.csv, f"{where}.csv")
    if stream.format == "parquet" and stream.compression != "auto":
        raise ConfigError(f"{where}.compression: Parquet files are compressed inside; remove this option")
    _check_schema(stream.schema, f"{where}.schema")
    paths = [_address(path, config, f"{where}.paths[{at}]") for at, path in enumerate(stream.paths)]
    return msgspec.structs.replace(stream, paths=list(dict.fromkeys(paths)))


def _check_csv(options: CsvOptions, where: str) -> None:
    for field, least in (("delimiter", 1), ("quote", 0), ("escape", 0)):
        text = getattr(options, field)
        if not least <= len(text) <= 1 or text in ("\r", "\n"):
            raise ConfigError(f"{where}.{field}: it must be one character, and not a line break")
    marks = [character for character in (options.delimiter, options.quote, options.escape) if character]
    if len(set(marks)) < len(marks):
        raise ConfigError(f"{where}: delimiter, quote and escape must be different characters")
    if options.header and options.columns:
        raise ConfigError(f"{where}.columns: it is for files without a header; set header: false, or remove columns")
    duplicates = [name for name, count in Counter(options.columns).items() if count > 1]
    if duplicates:
        raise ConfigError(f"{where}.columns: two columns have the name {duplicates[0]!r}; rename one")
    if options.skip_rows < 0:
        raise ConfigError(f"{where}.skipRows: it must be 0 or more")
    if not _is_text_encoding(options.encoding):
        raise ConfigError(
            f"{where}.encoding: {options.encoding!r} is not a text encoding of Python; use another, such as utf-8"
        )


def _is_text_encoding(name: str) -> bool:
    """Return True if Python decodes bytes to text with this codec; some codecs map bytes to bytes, or text to text."""
    try:
        decoder = codecs.getincrementaldecoder(name)("strict")
        return isinstance(decoder.decode(b"a" * 8), str) and codecs.lookup(name)._is_text_encoding  # noqa: SLF001
    except Exception:  # noqa: BLE001 - a codec that is not for text may raise anything
        return False


JSON_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


def _check_schema(schema: JsonSchema, where: str) -> None:
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        raise ConfigError(f"{where}.properties: it must be an object with a schema for each field")
    for name, declared in properties.items():
        types = declared.get("type", []) if isinstance(declared, dict) else None
        if types is None:
            raise ConfigError(f"{where}.properties.{name}: it must be a schema, such as {{type: string}}")
        for json_type in types if isinstance(types, list) else [types]:
            if json_type not in JSON_TYPES:
                raise ConfigError(f"{where}.properties.{name}.type: it must be one of {', '.join(JSON_TYPES)}")


def _address(path: str, config: FilesConfig, where: str) -> str:
    """Return the complete address of a path. An HTTP address must be on the server of spec.config.baseUrl."""
    if path.startswith("s3://"):
        bucket, _, key = path.removeprefix("s3://").partition("/")
        if not bucket or not key or any(character in bucket for character in WILDCARDS):
            raise ConfigError(f"{where}: {path!r} must be s3://bucket/key; the key may have the wildcards *, ** and ?")
        return path
    if not config.base_url:
        raise ConfigError(f"{where}: {path!r} is an HTTP path: name its server in spec.config.baseUrl")
    base = _origin(config.base_url, "spec.config.baseUrl")
    try:
        address = urljoin(config.base_url, path)
    except ValueError:
        address = ""
    if _origin(address, where) != base:
        raise ConfigError(
            f"{where}: {origin(address)} is not the server of spec.config.baseUrl; use one connection for each server"
        )
    return address


def _origin(address: str, where: str) -> str:
    try:
        found, host = origin(address), urlsplit(address).hostname
    except ValueError:
        host = None
    if not host:
        raise ConfigError(f"{where}: it must be an address such as https://files.example.com/exports/")
    return found


def origin(address: str) -> str:
    """Return the scheme, host and port of an address."""
    parts = urlsplit(address)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def display_path(path: str) -> str:
    """Return a path as messages and cursors show it: an address's query is replaced by a digest, as it may be a signature."""
    head, character, query = path.partition("?")
    if not character or path.startswith("s3://"):
        return path
    return f"{head}?{hashlib.blake2b(query.encode(), digest_size=4).hexdigest()}"
