"""The headers of a response to a request for a file: its version, its length, and which of its bytes the body has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx
from penstock_sdk import SourceContractError

from penstock_files_object.config import display_path
from penstock_files_object.error_mapping import file_changed
from penstock_files_object.file_cursor import File

NUMBER = re.compile(r"[0-9]{1,18}")
CONTENT_RANGE = re.compile(r"\s*bytes\s+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)\s*", re.IGNORECASE)
ENCODINGS = ("gzip", "x-gzip", "zstd", "br", "deflate", "compress", "x-compress", "dcb", "dcz")
"""Content codings that change the bytes (IANA's registry). Others, such as aws-chunked, do not change the received body."""


@dataclass(frozen=True, slots=True)
class ByteSpan:
    """The bytes of a file that a body has, as in Content-Range: both ends are included, `total` is the file's length."""

    first: int
    last: int
    total: int | None


class FileResponse:
    """The status and headers of a response."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers

    @property
    def etag(self) -> str:
        """The ETag, weak or strong; empty without one."""
        return str(self.headers.get("etag", ""))

    @property
    def modified(self) -> int | None:
        """The time of the last change, in milliseconds since 1970; None if the header is absent or is no date."""
        return parse_http_date(self.headers.get("last-modified"))

    @property
    def media_type(self) -> str:
        """The content type, without parameters."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    @property
    def length(self) -> int | None:
        """The length of the body in bytes."""
        text = self.headers.get("content-length", "").strip()
        return int(text) if NUMBER.fullmatch(text) else None

    @property
    def span(self) -> ByteSpan | None:
        """The bytes that the body of a 206 has; None for any other status, and without a valid Content-Range."""
        match = CONTENT_RANGE.fullmatch(self.headers.get("content-range", ""))
        if self.status != HTTPStatus.PARTIAL_CONTENT or not match:
            return None
        first, last, total = int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])
        is_possible = first <= last and (total is None or last < total)
        return ByteSpan(first, last, total) if is_possible and self.length in (None, last - first + 1) else None

    @property
    def size(self) -> int | None:
        """The whole file's length in bytes; None if the headers do not tell."""
        if self.status == HTTPStatus.PARTIAL_CONTENT:
            return self.span.total if self.span else None
        return None if self.encodings else self.length

    @property
    def version(self) -> str:
        """A text that changes with the content: the ETag, else the time of the last change, else the length."""
        return self.etag or self.headers.get("last-modified") or f"{self.size} bytes"

    @property
    def encodings(self) -> tuple[str, ...]:
        """The content codings of the body that change its bytes."""
        tokens = (token.strip().lower() for token in self.headers.get("content-encoding", "").split(","))
        return tuple(token for token in tokens if token in ENCODINGS)

    def refuse_encoding(self, path: str, allowed: tuple[str, ...] = ()) -> None:
        """Raise SourceContractError if the body has a content coding that is not in `allowed`."""
        for encoding in self.encodings:
            if encoding not in allowed:
                raise SourceContractError(
                    f"{display_path(path)}: the server sends the file with Content-Encoding: {encoding}, although the"
                    " request asks for it without; configure the server not to encode this file"
                )


def parse_http_date(text: str | None) -> int | None:
    """Return an HTTP date in milliseconds since 1970; None if the text is no date."""
    if not text:
        return None
    try:
        date = parsedate_to_datetime(text)
        return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def check_same_version(file: File, response: FileResponse) -> None:
    """Raise FileChangedError if the response has another version of the file than the listing."""
    if file.version.startswith(('"', "W/")) and response.etag:
        is_same = _without_weakness(file.version) == _without_weakness(response.etag)
    elif response.modified is not None and file.has_modified:
        is_same_second = file.modified // 1000 == response.modified // 1000
        is_same = file.version == response.headers["last-modified"] or is_same_second
    else:
        is_same = response.size is None or file.size is None or response.size == file.size
    if not is_same:
        raise file_changed(file.path)


def _without_weakness(etag: str) -> str:
    """Return an ETag without its weakness mark, which a proxy adds when it compresses the body."""
    return etag.removeprefix("W/")
