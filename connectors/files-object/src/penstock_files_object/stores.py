"""What files there are: S3 lists them; an HTTP server is asked for each address."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree as ET

from penstock_sdk import ConnectorError, SourceContractError

from penstock_files_object.config import WILDCARDS
from penstock_files_object.progress import UNKNOWN, File
from penstock_files_object.refusals import MissingError
from penstock_files_object.transport import Transport

log = logging.getLogger("penstock")
PAGE = 1000
NEAR = 3


def files(transport: Transport, path: str) -> Iterator[File]:
    """Yield the files of one path of the config, in no order; none where nothing matches."""
    if path.startswith("s3://") and any(mark in path for mark in WILDCARDS):
        yield from _listed(transport, path)
        return
    try:
        answer = transport.head(path)
    except MissingError:
        if path.startswith("s3://"):
            return
        raise
    modified = UNKNOWN if answer.modified is None else answer.modified
    followable = bool(answer.etag or answer.modified is not None)
    yield File(
        path, answer.version, modified, answer.size, listed=False, followable=followable, media_type=answer.media_type
    )


def _listed(transport: Transport, path: str) -> Iterator[File]:
    bucket, _, pattern = path.removeprefix("s3://").partition("/")
    wanted, data = matcher(pattern), matcher(pattern, hidden=False)
    passed_over = _PassedOver(path)
    for key, entry in _entries(transport, bucket, fixed_part(pattern), path):
        if not wanted.fullmatch(key):
            continue
        if key.endswith("/") or not data.fullmatch(key):
            passed_over.take(key)
        else:
            yield _file(bucket, key, entry, path)
    passed_over.tell()


def near_keys(transport: Transport, path: str) -> list[str]:
    """Return a few keys that begin as the path does, or of the bucket, to be named where none matches."""
    bucket, _, pattern = path.removeprefix("s3://").partition("/")
    fixed = fixed_part(pattern)
    folders = [fixed[: at + 1] for at in range(len(fixed) - 1, -1, -1) if fixed[at] == "/"]
    try:
        for prefix in (fixed, *folders, ""):
            query = f"?encoding-type=url&list-type=2&max-keys={NEAR}&prefix={quote(prefix, safe='')}"
            page = _parsed(transport.get(f"s3://{bucket}", query), path)
            if found := [_key(entry, page) for entry in page.iterfind("{*}Contents")]:
                return found
    except ConnectorError:
        return []  # what went wrong is said where the path itself is listed
    return []


def _entries(transport: Transport, bucket: str, prefix: str, path: str) -> Iterator[tuple[str, ET.Element]]:
    after = ""
    while True:
        token = f"&continuation-token={quote(after, safe='')}" if after else ""
        query = f"?encoding-type=url&list-type=2&max-keys={PAGE}&prefix={quote(prefix, safe='')}{token}"
        page = _parsed(transport.get(f"s3://{bucket}", query), path)
        for entry in page.iterfind("{*}Contents"):
            yield _key(entry, page), entry
        if _text(page, "IsTruncated").lower() != "true":
            return
        before, after = after, _text(page, "NextContinuationToken")
        if not after or after == before:
            raise SourceContractError(
                f"{path}: spec.config.endpoint says that its listing goes on, and not where (NextContinuationToken): it"
                " does not speak version 2 of S3's listing"
            )


def _key(entry: ET.Element, page: ET.Element) -> str:
    key = _text(entry, "Key")
    return unquote_plus(key) if _text(page, "EncodingType") == "url" else key


class _PassedOver:
    """Keys that match a pattern and hold no data: folders, and what begins with `_` or `.`, as Spark's _SUCCESS does."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._count = 0
        self._first: list[str] = []

    def take(self, key: str) -> None:
        """Note one."""
        self._count += 1
        self._first = [*self._first, key][:NEAR]

    def tell(self) -> None:
        """Write to the log what was passed over, and how to have it read."""
        if self._count:
            log.warning(
                "%s: %d keys are folders or begin with _ or . and were passed over, such as %s; a path that names them"
                " reads them",
                self._path,
                self._count,
                ", ".join(map(repr, self._first)),
            )


def _file(bucket: str, key: str, entry: ET.Element, path: str) -> File:
    try:
        moment = datetime.fromisoformat(_text(entry, "LastModified"))
        modified = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
        size = int(_text(entry, "Size"))
    except (ValueError, OverflowError):
        raise SourceContractError(
            f"{path}: spec.config.endpoint lists {key!r} without a LastModified and a Size that can be read"
        ) from None
    return File(f"s3://{bucket}/{key}", _text(entry, "ETag") or _text(entry, "LastModified"), modified, size)


def _parsed(body: bytes, path: str) -> ET.Element:
    try:
        page = ET.fromstring(body)  # noqa: S314 - expat refuses entities that grow since 2.4
    except (ET.ParseError, ValueError, LookupError) as error:
        raise SourceContractError(
            f"{path}: spec.config.endpoint answers a listing with what is not S3's XML: {error}"
        ) from None
    if page.tag.rpartition("}")[2] != "ListBucketResult":
        raise SourceContractError(
            f"{path}: spec.config.endpoint answers a listing with a document that is none: it is not S3's address"
        )
    return page


def _text(entry: ET.Element, name: str) -> str:
    return entry.findtext(f"{{*}}{name}") or ""


def fixed_part(pattern: str) -> str:
    """Return what all matching keys begin with."""
    return re.split(r"[*?]", pattern, maxsplit=1)[0]


def matcher(pattern: str, *, hidden: bool = True) -> re.Pattern[str]:
    """Return the pattern as a regular expression: `**/` any folders, `*` and `?` within one; all else is itself.

    Without `hidden`, a wildcard does not stand for the `_` or `.` that a name begins with, but for that of a folder that
    is a partition, such as `_year=2026`.
    """
    shown = "" if hidden else r"(?!\.|_(?![^/=]+=))"
    words = {"**/": f"(?:{shown}[^/]*/)*", "**": f"[^/]*(?:/{shown}[^/]*)*", "*": "[^/]*", "?": "[^/]"}
    found, before = "", "/"
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        is_begin = before.endswith("/") and part in ("*", "?", "**")
        found += (shown if is_begin else "") + (words.get(part) or re.escape(part))
        before = part or before
    return re.compile(found, re.DOTALL)
