"""What a server says of a file in the headers of its answer: its version, its length, and which part of it this is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx
from penstock_sdk import SourceContractError

from penstock_files_object.config import shown
from penstock_files_object.progress import File
from penstock_files_object.refusals import changed

NUMBER = re.compile(r"[0-9]{1,18}")
CONTENT_RANGE = re.compile(r"\s*bytes\s+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)\s*", re.IGNORECASE)
ENCODINGS = ("gzip", "x-gzip", "zstd", "br", "deflate", "compress", "x-compress", "dcb", "dcz")
"""Content codings that change the bytes (IANA's registry). Others, such as aws-chunked, say nothing of what arrives."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a file that an answer holds: both ends included; `total` is the whole file's length."""

    first: int
    last: int
    total: int | None


class Answer:
    """The headers of an answer."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers

    @property
    def etag(self) -> str:
        """The version, whether weak or strong."""
        return str(self.headers.get("etag", ""))

    @property
    def modified(self) -> int | None:
        """The moment of the last change, in milliseconds since 1970; None where it is not said, or no date."""
        return http_date(self.headers.get("last-modified"))

    @property
    def media_type(self) -> str:
        """What the server says that the file holds, without parameters."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    @property
    def length(self) -> int | None:
        """The bytes of this answer's body."""
        text = self.headers.get("content-length", "").strip()
        return int(text) if NUMBER.fullmatch(text) else None

    @property
    def part(self) -> Part | None:
        """The part that a 206 holds; None for any other answer, and where Content-Range does not say which part it is."""
        found = CONTENT_RANGE.fullmatch(self.headers.get("content-range", ""))
        if self.status != HTTPStatus.PARTIAL_CONTENT or not found:
            return None
        first, last, total = int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3])
        is_possible = first <= last and (total is None or last < total)
        return Part(first, last, total) if is_possible and self.length in (None, last - first + 1) else None

    @property
    def size(self) -> int | None:
        """The whole file's bytes, as far as this answer says."""
        if self.status == HTTPStatus.PARTIAL_CONTENT:
            return self.part.total if self.part else None
        return None if self.encodings else self.length

    @property
    def version(self) -> str:
        """What changes with the content, as far as the server says."""
        return self.etag or self.headers.get("last-modified") or f"{self.size} bytes"

    @property
    def encodings(self) -> tuple[str, ...]:
        """The content codings of the body that change its bytes."""
        tokens = (each.strip().lower() for each in self.headers.get("content-encoding", "").split(","))
        return tuple(token for token in tokens if token in ENCODINGS)

    def refuse_encoding(self, path: str, beside: tuple[str, ...] = ()) -> None:
        """Raise SourceContractError if the body is in a coding other than those `beside`, which its reader undoes."""
        for encoding in self.encodings:
            if encoding not in beside:
                raise SourceContractError(
                    f"{shown(path)}: the server sends it with Content-Encoding: {encoding}, though it was asked for the"
                    " file as it is; have the server not encode this file"
                )


def http_date(text: str | None) -> int | None:
    """Return an HTTP date in milliseconds since 1970; None for what is no date."""
    if not text:
        return None
    try:
        found = parsedate_to_datetime(text)
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def check_same(file: File, answer: Answer) -> None:
    """Raise ChangedError unless the answer is of the version that was listed, as far as it says which it is."""
    if file.version.startswith(('"', "W/")) and answer.etag:
        same = _opaque(file.version) == _opaque(answer.etag)
    elif answer.modified is not None and file.has_moment:
        same = file.version == answer.headers["last-modified"] or file.modified // 1000 == answer.modified // 1000
    else:
        same = answer.size is None or file.size is None or answer.size == file.size
    if not same:
        raise changed(file.path)


def _opaque(etag: str) -> str:
    """Return what an ETag says without its weakness: a server that compresses on its way weakens it."""
    return etag.removeprefix("W/")
