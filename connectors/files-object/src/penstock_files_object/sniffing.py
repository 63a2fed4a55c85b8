"""What a text file's first bytes say that it is instead: a sign-in page, an archive, text in another encoding."""

from __future__ import annotations

import codecs
import re

BEFORE_MARKUP = rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?(?:-->|\Z)\s*)*"
PAGE = re.compile(BEFORE_MARKUP + rb"<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
PART_OF_PAGE = re.compile(
    BEFORE_MARKUP
    + rb"<(?:head|body|title|meta|link|script|style|noscript|iframe|div|form|table|p|a|b|span|font|img|center"
    rb"|main|section|header|pre|ul|br|hr|h[1-6])(?=[\s>/])",
    re.IGNORECASE | re.DOTALL,
)
XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml\s", re.IGNORECASE)
JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*\"[^\"]*\"\s*:|\[\s*\{)")
BINARY: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "Parquet", "set format: parquet"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or export it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", "export it as CSV"),
    (b"\xfd7zXZ\x00", "compressed with xz", "compress it with gzip or zstd"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "compress it with gzip or zstd"),
    (b"\xff\x06\x00\x00sNaPpY", "compressed with snappy", "compress it with gzip or zstd"),
    (b"BZh", "compressed with bzip2", "compress it with gzip or zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (b"\x1f\x8b", "gzip within another compression", "compress it once"),
    (b"\x28\xb5\x2f\xfd", "zstd within another compression", "compress it once"),
    (b"Obj\x01", "Avro", "export it as Parquet, JSON Lines or CSV"),
    (b"ARROW1", "an Arrow file", "export it as Parquet"),
    (b"%PDF-", "a PDF document", "correct the path"),
)
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
TAR_MARK = slice(257, 262)
HEAD_BYTES = 1024


def other_than_text(head: bytes, *, is_utf8: bool) -> str:
    """Say what a file is instead of text, with the remedy; empty where nothing speaks against text."""
    for magic, name, remedy in BINARY:
        if head.startswith(magic) and (magic != b"BZh" or head[4:10] == b"1AY&SY"):
            return f"it is {name}, not text; {remedy}"
    if head[TAR_MARK] == b"ustar":
        return "it is a tar archive, not text; unpack it"
    if is_utf8:
        for mark, encoding in BYTE_ORDER_MARKS:
            if head.startswith(mark):
                return f"it begins with the byte order mark of {encoding}; set csv.encoding: {encoding} on the stream"
        if _is_wide(head):
            return "every other byte is zero, as in utf-16; set csv.encoding: utf-16-le or utf-16-be on the stream"
    return ""


def other_than_data(head: bytes, *, may_hold_markup: bool = False) -> str:
    """Say what text is instead of rows, with the remedy; empty where it may be rows.

    Only a whole page is told from rows that `may_hold_markup` themselves.
    """
    if PAGE.match(head) or (not may_hold_markup and PART_OF_PAGE.match(head)):
        return "it is HTML, such as a sign-in or an error page; open the address without credentials, and correct it"
    if XML.match(head):
        return "it is XML, such as a store's error; correct the path"
    return ""


def other_than_csv(head: bytes) -> str:
    """Say what a CSV file with a header is instead, with the remedy; empty where it may be one."""
    if JSON.match(head):
        return "it is JSON; set format: jsonl on the stream if each line is an object, or correct the path"
    return ""


def _is_wide(head: bytes) -> bool:
    even, odd = head[:64:2], head[1:64:2]
    return len(odd) > 1 and ((not any(odd) and all(even)) or (not any(even) and all(odd)))
