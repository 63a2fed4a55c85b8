"""A response whose body is in memory, and what it says when it is not what was expected."""

from __future__ import annotations

import codecs
import re
from functools import cached_property
from typing import Any, TypeVar

import httpx
import msgspec

from penstock_sdk._redirects import origin_of
from penstock_sdk.errors import SourceContractError
from penstock_sdk.json_types import JsonValue

T = TypeVar("T")
CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:-]+)", re.IGNORECASE)
TITLE = re.compile(rb"<title[^>]*>([^<]{1,200})", re.IGNORECASE)
GZIP_MAGIC = b"\x1f\x8b"
LONGEST_TITLE = 80
LONGEST_BLANK = 256
"""White space before a value; a body with more of it is not searched for fields."""


class Response:
    """A response of the source with a status of 2xx."""

    def __init__(self, status: int, headers: httpx.Headers, content: bytes, url: httpx.URL, place: str) -> None:
        self.status = status
        self.headers = headers
        self.content = content
        """The body, decompressed."""
        self.url = url
        self.place = place
        """The response in messages, such as "the response to GET /items"."""

    def json(self, shape: type[T]) -> T:
        """Return the body as a value of a type, such as a msgspec.Struct. Raises SourceContractError for any other body."""
        return self.decoded(self.json_content, shape)

    def field(self, path: str) -> JsonValue:
        """Return the value at a path of the body, such as "paging.next"; None if there is no such field or it is null.

        A key that has a dot itself, such as "@odata.nextLink", is found too.
        """
        raw = self.raw_field(path)
        return None if raw is None else self.decoded(raw, _ANY)

    def raw_field(self, path: str) -> bytes | msgspec.Raw | None:
        """Return the JSON at a path of the body, not decoded; None if there is no such field. "" is the whole body."""
        if not path:
            return self.json_content
        fields, rest = self._fields, path
        while fields is not None:
            if rest in fields:
                return fields[rest]
            key, dot, rest = rest.partition(".")
            if not dot or key not in fields:
                return None
            fields = self._object(fields[key])
        return None

    def absolute_url(self, target: str) -> str:
        """Return the URL of a link in this response, which may be relative. Raises SourceContractError if it is not valid."""
        return str(self._joined(target))

    def next_url(self, target: str) -> str:
        """Return the URL of the next page, without its fragment. Raises SourceContractError for a URL of another host."""
        url = self._joined(target)
        if origin_of(url) != origin_of(self.url):
            raise SourceContractError(
                f"{self.place}: the next page is on another host, {url.host or url.scheme}, and credentials are not sent there"
            )
        return str(url.copy_with(fragment=None))

    def _joined(self, target: str) -> httpx.URL:
        try:
            return self.url.join(target)
        except httpx.InvalidURL:
            raise SourceContractError(f"{self.place} has a link that is not a valid URL: {target[:200]!r}") from None

    @cached_property
    def json_content(self) -> bytes:
        """The body as UTF-8. Raises SourceContractError for HTML, and for text that is not in the declared charset."""
        content = self.content.removeprefix(codecs.BOM_UTF8)
        declared = CHARSET.search(self.headers.get("Content-Type", ""))
        if declared and declared[1].lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
            content = self._transcoded(content, declared[1])
        self._refuse_other_content(content)
        return content

    def decoded(self, raw: bytes | msgspec.Raw, shape: type[T]) -> T:
        """Return JSON of this response as a value of a type. Raises SourceContractError if it is not of the type."""
        try:
            return msgspec.json.decode(raw, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            kind = "of another shape" if isinstance(error, msgspec.ValidationError) else "not valid JSON"
            raise SourceContractError(f"{self.place} is {kind}: {error}") from None

    @cached_property
    def _fields(self) -> dict[str, msgspec.Raw] | None:
        return self._object(self.json_content)

    def _object(self, raw: bytes | msgspec.Raw) -> dict[str, msgspec.Raw] | None:
        is_object = bytes(memoryview(raw)[:LONGEST_BLANK]).lstrip()[:1] == b"{"
        return self.decoded(raw, dict[str, msgspec.Raw]) if is_object else None

    def _transcoded(self, content: bytes, charset: str) -> bytes:
        try:
            return content.decode(charset).encode()
        except LookupError:
            raise SourceContractError(f"{self.place} has an unknown charset, {charset[:40]!r}") from None
        except UnicodeError:
            raise SourceContractError(
                f"{self.place} is not in the charset that it declares, {charset[:40]!r}"
            ) from None

    def _refuse_other_content(self, content: bytes) -> None:
        beginning = content[:1024].lstrip()
        if beginning.startswith(b"<"):
            title = TITLE.search(content[:65536])
            shown = f" with the title {_printable(title[1])!r}" if title else ""
            raise SourceContractError(
                f"{self.place} is {'an HTML page' if title or b'<html' in beginning.lower() else 'HTML or XML'}{shown}, not JSON:"
                " check the address in the config, and whether it leads to a login page"
            )
        if not beginning:
            raise SourceContractError(f"{self.place} is empty where JSON was expected (HTTP {self.status})")
        if content.startswith(GZIP_MAGIC):
            raise SourceContractError(f"{self.place} is gzip data without a Content-Encoding header")


_ANY: type[JsonValue] = Any  # type: ignore[assignment]  # msgspec decodes Any to plain values, which is JsonValue


def _printable(text: bytes) -> str:
    words = " ".join(text.decode(errors="replace").split())
    return "".join(character for character in words if character.isprintable())[:LONGEST_TITLE]
