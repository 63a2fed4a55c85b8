"""Lists the files of a path: S3 lists the keys that match; an HTTP server is asked for each address."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree as ET

from penstock_sdk import ConnectorError, SourceContractError

from penstock_files_object.config import WILDCARDS
from penstock_files_object.error_mapping import MissingFileError
from penstock_files_object.file_cursor import UNKNOWN_TIME, File
from penstock_files_object.transport import Transport

log = logging.getLogger("penstock")
PAGE_KEYS = 1000
MOST_NAMED = 3


def list_files(transport: Transport, path: str) -> Iterator[File]:
    """Yield the files of a path of spec.config.streams, in no order; none if no file matches."""
    if path.startswith("s3://") and any(wildcard in path for wildcard in WILDCARDS):
        yield from _listed(transport, path)
        return
    try:
        response = transport.head(path)
    except MissingFileError:
        if path.startswith("s3://"):
            return
        raise
    modified = UNKNOWN_TIME if response.modified is None else response.modified
    followable = bool(response.etag or response.modified is not None)
    yield File(
        path,
        response.version,
        modified,
        response.size,
        listed=False,
        followable=followable,
        media_type=response.media_type,
    )


def _listed(transport: Transport, path: str) -> Iterator[File]:
    bucket, _, pattern = path.removeprefix("s3://").partition("/")
    all_keys, data_keys = compile_pattern(pattern), compile_pattern(pattern, hidden=False)
    ignored = _IgnoredKeys(path)
    for key, entry in _entries(transport, bucket, literal_prefix(pattern), path):
        if not all_keys.fullmatch(key):
            continue
        if key.endswith("/") or not data_keys.fullmatch(key):
            ignored.add(key)
        else:
            yield _file(bucket, key, entry, path)
    ignored.log()


def similar_keys(transport: Transport, path: str) -> list[str]:
    """Return a few keys that begin like the path, or any keys of the bucket, for a message that no file matches."""
    bucket, _, pattern = path.removeprefix("s3://").partition("/")
    fixed = literal_prefix(pattern)
    folders = [fixed[: at + 1] for at in range(len(fixed) - 1, -1, -1) if fixed[at] == "/"]
    try:
        for prefix in (fixed, *folders, ""):
            query = f"?encoding-type=url&list-type=2&max-keys={MOST_NAMED}&prefix={quote(prefix, safe='')}"
            page = _parsed(transport.get(f"s3://{bucket}", query), path)
            if found := [_key(entry, page) for entry in page.iterfind("{*}Contents")]:
                return found
    except ConnectorError:
        return []  # listing the path itself reports the error
    return []


def _entries(transport: Transport, bucket: str, prefix: str, path: str) -> Iterator[tuple[str, ET.Element]]:
    token = ""
    while True:
        token = f"&continuation-token={quote(token, safe='')}" if token else ""
        query = f"?encoding-type=url&list-type=2&max-keys={PAGE_KEYS}&prefix={quote(prefix, safe='')}{token}"
        page = _parsed(transport.get(f"s3://{bucket}", query), path)
        for entry in page.iterfind("{*}Contents"):
            yield _key(entry, page), entry
        if _text(page, "IsTruncated").lower() != "true":
            return
        before, token = token, _text(page, "NextContinuationToken")
        if not token or token == before:
            raise SourceContractError(
                f"{path}: spec.config.endpoint sends a truncated listing without a new NextContinuationToken, as a store that does"
                " not support ListObjectsV2 does; use an endpoint that supports it"
            )


def _key(entry: ET.Element, page: ET.Element) -> str:
    key = _text(entry, "Key")
    return unquote_plus(key) if _text(page, "EncodingType") == "url" else key


class _IgnoredKeys:
    """Keys that match a pattern and have no data: folders, and names that begin with `_` or `.`, such as Spark's _SUCCESS."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._count = 0
        self._examples: list[str] = []

    def add(self, key: str) -> None:
        """Count a key."""
        self._count += 1
        self._examples = [*self._examples, key][:MOST_NAMED]

    def log(self) -> None:
        """Log how many keys were ignored, and how to read them."""
        if self._count:
            log.warning(
                "%s: %d keys are folders or begin with _ or . and were not read, such as %s; a path that names them"
                " reads them",
                self._path,
                self._count,
                ", ".join(map(repr, self._examples)),
            )


def _file(bucket: str, key: str, entry: ET.Element, path: str) -> File:
    try:
        modified_at = datetime.fromisoformat(_text(entry, "LastModified"))
        modified = int((modified_at if modified_at.tzinfo else modified_at.replace(tzinfo=UTC)).timestamp() * 1000)
        size = int(_text(entry, "Size"))
    except (ValueError, OverflowError):
        raise SourceContractError(
            f"{path}: spec.config.endpoint lists {key!r} without a valid LastModified and Size; use an S3-compatible endpoint"
        ) from None
    return File(f"s3://{bucket}/{key}", _text(entry, "ETag") or _text(entry, "LastModified"), modified, size)


def _parsed(body: bytes, path: str) -> ET.Element:
    try:
        page = ET.fromstring(body)  # noqa: S314 - expat 2.4 and later limits entity expansion
    except (ET.ParseError, ValueError, LookupError) as error:
        raise SourceContractError(
            f"{path}: spec.config.endpoint answers a listing with something else than XML: {error}; correct the endpoint"
        ) from None
    if page.tag.rpartition("}")[2] != "ListBucketResult":
        raise SourceContractError(
            f"{path}: spec.config.endpoint does not answer with a listing: it is not the address of an S3 store; correct it"
        )
    return page


def _text(entry: ET.Element, name: str) -> str:
    return entry.findtext(f"{{*}}{name}") or ""


def literal_prefix(pattern: str) -> str:
    """Return the text before the first wildcard: all matching keys begin with it."""
    return re.split(r"[*?]", pattern, maxsplit=1)[0]


def compile_pattern(pattern: str, *, hidden: bool = True) -> re.Pattern[str]:
    """Return a pattern as a regular expression: `**/` matches any folders, `*` and `?` match within one folder.

    Without `hidden`, a wildcard does not match a leading `_` or `.` of a name, except that of a folder such as `_year=2026`.
    """
    not_hidden = "" if hidden else r"(?!\.|_(?![^/=]+=))"
    words = {"**/": f"(?:{not_hidden}[^/]*/)*", "**": f"[^/]*(?:/{not_hidden}[^/]*)*", "*": "[^/]*", "?": "[^/]"}
    found, before = "", "/"
    for token in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        is_begin = before.endswith("/") and token in ("*", "?", "**")
        found += (not_hidden if is_begin else "") + (words.get(token) or re.escape(token))
        before = token or before
    return re.compile(found, re.DOTALL)
