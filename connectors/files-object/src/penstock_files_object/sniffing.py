"""Recognizes, by its first bytes, a file that is not the expected text: a sign-in page, an archive, another encoding."""

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
    (b"\x1f\x9d", "compressed with compress", "compress it with gzip or zstd"),
    (b"\x5d\x00\x00", "compressed with lzma", "compress it with gzip or zstd"),
    (b"\x78\x01", "compressed with zlib", "compress it with gzip or zstd"),
    (b"\x78\x9c", "compressed with zlib", "compress it with gzip or zstd"),
    (b"\x78\xda", "compressed with zlib", "compress it with gzip or zstd"),
    (b"\x89LZO\x00", "compressed with lzop", "compress it with gzip or zstd"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (b"PK\x05\x06", "an empty zip archive", "correct the path"),
    (b"PK\x07\x08", "a zip archive", "unpack it"),
    (b"ORC", "ORC", "export it as Parquet, JSON Lines or CSV"),
    (b"SQLite format 3\x00", "an SQLite database", "export it as CSV"),
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
PAGE_MEDIA_TYPES = (
    "text/html",
    "application/xhtml+xml",
    "application/json",
    "application/problem+json",
    "application/xml",
    "text/xml",
)
ERROR_WORDS = (
    r"unauthori[sz]ed|forbidden|access denied|permission denied|authentication (?:is )?required|(?:page |file )?not found"
    r"|no such (?:file|key|bucket)|bad request|bad gateway|gateway time-?out|service (?:temporarily )?unavailable"
    r"|internal server error|too many requests|rate limit exceeded|request timeout|method not allowed"
    r"|token (?:has )?expired|invalid (?:token|credentials|api key)|(?:site )?(?:is )?(?:under|down for) maintenance"
    r"|temporarily unavailable|an error (?:has )?occurred"
)
ERROR_PHRASE = re.compile(rf"(?:error:\s*)?(?:{ERROR_WORDS})\s*[.!]*", re.IGNORECASE)
STATUS_LINE = re.compile(
    rf"(?:http(?:/[0-9.]+)?\s+|error:?\s+|status:?\s+)?[45][0-9][0-9]\s*[-:,.]?\s*(?:error:?\s*)?(?:{ERROR_WORDS}|gone)\s*[.!]*"
    r"|error:?\s+[45][0-9][0-9]",
    re.IGNORECASE,
)
"""A status line of HTTP, as servers write it into bodies."""
SENTENCE_WORDS = 4
TAR_SIGNATURE = slice(257, 262)
HEAD_BYTES = 1024


def why_not_text(head: bytes, *, is_utf8: bool) -> str:
    """Return what a file is, if it is not text, and the remedy; empty if it may be text."""
    for magic, name, remedy in BINARY:
        if head.startswith(magic) and _is_binary(magic, head, is_utf8=is_utf8):
            return f"it is {name}, not text; {remedy}"
    if head[TAR_SIGNATURE] == b"ustar":
        return "it is a tar archive, not text; unpack it"
    if is_utf8:
        for signature, encoding in BYTE_ORDER_MARKS:
            if head.startswith(signature):
                return f"it begins with the byte order mark of {encoding}; set csv.encoding: {encoding} on the stream"
        if _looks_like_utf16(head):
            return "every other byte is zero, as in utf-16; set csv.encoding: utf-16-le or utf-16-be on the stream"
    return ""


def _is_binary(magic: bytes, head: bytes, *, is_utf8: bool) -> bool:
    """Return True if a file with this signature is binary; text may begin with the same characters as some signatures."""
    if magic.startswith(b"x"):
        return is_utf8 and not _is_utf8(head)
    if magic == b"BZh":
        return head[4:10] == b"1AY&SY"
    return magic != b"ORC" or not head[3:12].isascii() or b"\0" in head[3:12]


def why_server_message(head: bytes, media_type: str, *, is_whole: bool) -> str:
    """Return that a text is a server's message, and the remedy; empty if it may be rows.

    A file with one column is valid, and so is one without rows. So a text counts as a message only if its first line is an
    HTTP status, or if it has only one line, which is a sentence or has the media type of a page.
    """
    lines = [line.strip() for line in head.decode("utf-8-sig", errors="replace").strip().splitlines() if line.strip()]
    if not lines:
        return ""
    is_alone = is_whole and len(lines) == 1
    is_page = is_alone and media_type in PAGE_MEDIA_TYPES
    if STATUS_LINE.fullmatch(lines[0]) or (
        is_alone and (ERROR_PHRASE.fullmatch(lines[0]) or is_page or _is_sentence(lines[0]))
    ):
        return (
            "it is a message and has no rows, such as a server's error or a maintenance notice; open the address to read it,"
            " and correct the path or the credentials"
        )
    return ""


def _is_sentence(line: str) -> bool:
    """Return True for a sentence, which is no header: it ends with a full stop and has no delimiters except commas."""
    return (
        len(line.split()) >= SENTENCE_WORDS
        and line.endswith((".", "!", "?"))
        and not any(delimiter in line for delimiter in ';\t|"')
    )


def why_not_rows(head: bytes, *, may_hold_markup: bool = False) -> str:
    """Return what a text is, if it is HTML or XML, and the remedy; empty if it may be rows.

    If rows `may_hold_markup`, only a whole HTML page is recognized.
    """
    if PAGE.match(head) or (not may_hold_markup and PART_OF_PAGE.match(head)):
        return (
            "it is HTML, such as a sign-in or an error page; open the address without credentials, and correct the path"
        )
    if XML.match(head):
        return "it is XML, such as a store's error; correct the path"
    return ""


def why_not_csv(head: bytes) -> str:
    """Return what a file is, if it is not CSV with a header, and the remedy; empty if it may be."""
    if JSON.match(head):
        return "it is JSON; set format: jsonl on the stream if each line is an object, or correct the path"
    return ""


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _looks_like_utf16(head: bytes) -> bool:
    even, odd = head[:64:2], head[1:64:2]
    return len(odd) > 1 and ((not any(odd) and all(even)) or (not any(even) and all(odd)))
