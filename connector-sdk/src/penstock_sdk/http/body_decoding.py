"""The body of a response, decompressed in small chunks, so that a small response cannot fill the memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Literal

from penstock_sdk.errors import SourceContractError, TransientError

Compression = Literal["gzip", "deflate"]
ACCEPTED_ENCODINGS = "gzip, deflate"
"""What requests accept. Another encoding is refused, as it was not asked for."""
CHUNK_BYTES = 64 * 1024
GZIP_OR_ZLIB, RAW_DEFLATE = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS
ALIASES = {"x-gzip": "gzip"}


def decoded_chunks(raw: Iterable[bytes], content_encoding: str, place: str) -> Iterator[bytes]:
    """Yield the decompressed body in chunks of at most 64 KiB. `place` names the response in messages.

    Raises SourceContractError for a body that is not encoded as the header says, and TransientError for one that ends early.
    """
    chunks: Iterable[bytes] = raw
    names = [name.strip().lower() for name in content_encoding.split(",")]
    for name in reversed([ALIASES.get(name, name) for name in names if name not in ("", "identity")]):
        if name not in ("gzip", "deflate"):
            raise SourceContractError(
                f"{place} is encoded as {name[:40]!r}, which the request did not accept ({ACCEPTED_ENCODINGS})"
            )
        chunks = _inflated(chunks, name, place)
    for chunk in chunks:
        for start in range(0, len(chunk), CHUNK_BYTES):
            yield chunk[start : start + CHUNK_BYTES]


def _inflated(raw: Iterable[bytes], name: str, place: str) -> Iterator[bytes]:
    decoder: zlib._Decompress | None = None
    ended = False
    for data in raw:
        pending = data
        while pending:
            if decoder is None:
                if ended and not pending.strip(b"\0"):
                    break  # padding after the last member
                decoder = zlib.decompressobj(_window_bits(pending, name))
            try:
                chunk = decoder.decompress(pending, CHUNK_BYTES)
            except zlib.error:
                raise SourceContractError(
                    f"{place} says that it is encoded as {name} (Content-Encoding), and is not"
                ) from None
            if chunk:
                yield chunk
            if decoder.eof:  # a gzip body may have several members
                pending, decoder, ended = decoder.unused_data, None, True
            else:
                pending = decoder.unconsumed_tail
    while decoder is not None and (chunk := decoder.decompress(b"", CHUNK_BYTES)):
        yield chunk
    if decoder is not None and not decoder.eof:
        raise TransientError(f"{place} ended in the middle of its {name} data")


def _window_bits(data: bytes, name: str) -> int:
    """Return the format of compressed data: servers send `deflate` with and without the header of zlib."""
    has_zlib_header = len(data) > 1 and data[0] & 0x0F == zlib.DEFLATED and (data[0] << 8 | data[1]) % 31 == 0
    return RAW_DEFLATE if name == "deflate" and not has_zlib_header else GZIP_OR_ZLIB
