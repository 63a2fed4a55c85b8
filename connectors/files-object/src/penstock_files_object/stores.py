"""What files there are: S3 lists them; an HTTP server is asked for each address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree as ET

from penstock_sdk import SourceContractError

from penstock_files_object.config import WILDCARDS
from penstock_files_object.progress import File
from penstock_files_object.refusals import MissingError
from penstock_files_object.transport import Transport

PAGE = 1000
UNKNOWN = 253_402_300_800_000  # the end of 9999: a file of which nobody says when it was changed may be new


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
    yield File(path, answer.version, modified, answer.size, listed=False, followable=followable)


def _listed(transport: Transport, path: str) -> Iterator[File]:
    bucket, _, pattern = path.removeprefix("s3://").partition("/")
    wanted, after = matcher(pattern), ""
    while True:
        token = f"&continuation-token={quote(after, safe='')}" if after else ""
        query = f"?encoding-type=url&list-type=2&max-keys={PAGE}&prefix={quote(fixed_part(pattern), safe='')}{token}"
        page = _parsed(transport.get(f"s3://{bucket}", query), path)
        for each in page.iterfind("{*}Contents"):
            key = unquote_plus(_text(each, "Key"))
            if wanted.fullmatch(key) and not key.endswith("/"):
                yield _file(bucket, key, each)
        after = _text(page, "NextContinuationToken")
        if _text(page, "IsTruncated") != "true" or not after:
            return


def _file(bucket: str, key: str, entry: ET.Element) -> File:
    modified = datetime.fromisoformat(_text(entry, "LastModified"))
    return File(
        f"s3://{bucket}/{key}", _text(entry, "ETag"), int(modified.timestamp() * 1000), int(_text(entry, "Size"))
    )


def _parsed(body: bytes, path: str) -> ET.Element:
    try:
        return ET.fromstring(body)  # noqa: S314 - expat refuses entities that grow since 2.4
    except ET.ParseError as error:
        raise SourceContractError(
            f"{path}: spec.config.endpoint answers a listing with what is not S3's XML: {error}"
        ) from None


def _text(entry: ET.Element, name: str) -> str:
    return entry.findtext(f"{{*}}{name}") or ""


def fixed_part(pattern: str) -> str:
    """Return what all matching keys begin with."""
    return re.split(r"[*?]", pattern, maxsplit=1)[0]


def matcher(pattern: str) -> re.Pattern[str]:
    """Return the pattern as a regular expression: `**/` any folders, `*` and `?` within one; all else is itself."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(words.get(part) or re.escape(part) for part in parts), re.DOTALL)
