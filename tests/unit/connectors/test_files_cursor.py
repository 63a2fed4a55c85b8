"""What a cursor keeps about files: no file is read twice, none is skipped, and the cursor stays small."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from penstock_files_object.file_cursor import (
    File,
    FileOffset,
    FilesCursor,
    PartialFile,
    PathCursor,
    path_cursors_to_json,
)
from penstock_files_object.listing import compile_pattern, literal_prefix

LOOKBACK = 10
moments = st.integers(0, 60)
batches = st.lists(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), moments), max_size=8, unique_by=lambda item: item[0]), max_size=6
)


def file(name: str, modified: int, version: str = "1", *, listed: bool = True) -> File:
    return File(f"s3://b/{name}", f'"{version}"', modified, 1, listed=listed)


def read_all(path_cursor: PathCursor, files: list[File], kept: int = 5000) -> tuple[list[File], PathCursor]:
    """Read what is pending, each file from a cursor that went through JSON."""
    seen = []
    while pending := path_cursor.pending(files):
        seen.append(pending[0])
        saved = msgspec.json.decode(
            msgspec.json.encode({"marks": path_cursors_to_json({"p": path_cursor.after(pending[0], LOOKBACK, kept)})})
        )
        path_cursor = FilesCursor.parse(saved).path_cursor("p", None)
    return seen, path_cursor


@given(batches)
def test_every_file_within_the_lookback_is_read_once(arrivals: list[list[tuple[str, int]]]) -> None:
    """Files arrive in any order, with moments shared or older than what was read; each is read once and none twice."""
    there: list[File] = []
    read: list[File] = []
    path_cursor = PathCursor()
    for number, arriving in enumerate(arrivals):
        newest = max((file.modified for file in read), default=-1)
        there += [file(f"{name}{number}", at) for name, at in arriving if at >= newest - LOOKBACK]
        seen, path_cursor = read_all(path_cursor, there)
        read += seen
    assert sorted(file.path for file in read) == sorted(file.path for file in there)


@given(
    st.lists(st.tuples(st.integers(0, 500), moments), max_size=60, unique_by=lambda item: item[0]), st.integers(1, 5)
)
def test_one_listing_is_read_once_whatever_the_bound(listed: list[tuple[int, int]], kept: int) -> None:
    """The digests stay within their bound, also when more files than that share a moment."""
    files = [file(f"{name:03}", at) for name, at in listed]
    seen, path_cursor = read_all(PathCursor(), files, kept)
    assert seen == sorted(files, key=lambda file: file.order)
    assert len(path_cursor.read) <= kept
    assert read_all(path_cursor, files, kept)[0] == []


def test_files_that_share_a_moment_are_told_apart() -> None:
    _, path_cursor = read_all(PathCursor(), [file("b", 5)])
    assert [pending.path for pending in path_cursor.pending([file("a", 5), file("b", 5), file("c", 5)])] == [
        "s3://b/a",
        "s3://b/c",
    ]


def test_a_file_written_anew_is_read_again() -> None:
    _, path_cursor = read_all(PathCursor(), [file("a", 5), file("b", 6)])
    assert path_cursor.pending([file("a", 5, "2"), file("b", 6)]) == [file("a", 5, "2")]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("123")), max_size=12))
def test_the_last_version_of_each_file_is_the_last_one_read_within_one_moment(writes: list[tuple[str, str]]) -> None:
    """A file that goes back to an earlier version is read again; one that did not change is not."""
    there, last, path_cursor = {}, {}, PathCursor()
    for name, version in writes:
        there[name] = file(name, 5, version)
        seen, path_cursor = read_all(path_cursor, list(there.values()))
        assert seen == ([there[name]] if last.get(name) != version else [])
        last[name] = version


def test_a_cursor_of_an_earlier_connector_still_says_what_was_read() -> None:
    old = PathCursor(read=((5, file("a", 5).digest),))
    assert old.pending([file("a", 5), file("b", 5)]) == [file("b", 5)]
    assert old.after(file("b", 6), LOOKBACK).pending([file("a", 5), file("b", 6)]) == []


def test_a_late_file_is_read_within_the_lookback_and_not_beyond() -> None:
    _, path_cursor = read_all(PathCursor(), [file("a", 100)])
    assert path_cursor.pending([file("late", 90), file("too-late", 89)]) == [file("late", 90)]


def test_an_address_of_its_own_is_known_by_its_version_alone() -> None:
    """There is nothing to pass over, so an older moment does not hide a new version."""
    _, path_cursor = read_all(PathCursor(), [file("a", 1000, "1", listed=False)])
    assert path_cursor.pending([file("a", 1000, "1", listed=False)]) == []
    assert path_cursor.pending([file("a", 1, "2", listed=False)])
    assert len(path_cursor.after(file("a", 1, "2", listed=False), LOOKBACK).read) == 1


def test_since_is_included_and_limits_only_a_path_without_a_cursor() -> None:
    path_cursor = FilesCursor().path_cursor("p", 50)
    assert path_cursor.pending([file("a", 49), file("b", 50)]) == [file("b", 50)]
    kept = FilesCursor({"p": PathCursor()}).path_cursor("p", 50)
    assert kept.pending([file("a", 49)])


def test_an_offset_in_a_file_is_valid_only_for_the_same_version_and_parse_options() -> None:
    cursor = FilesCursor(current=PartialFile("s3://b/a", '"1"', "csv", FileOffset(7)))
    assert cursor.offset(file("a", 5), "csv") == FileOffset(7)
    assert cursor.offset(file("a", 5, "2"), "csv") is None
    assert cursor.offset(file("a", 5), "jsonl") is None
    assert cursor.offset(file("b", 5), "csv") is None


def test_a_signature_in_an_address_is_in_no_cursor() -> None:
    signed = File("https://h/a.csv?sig=s3cr3t", '"1"', 5, 1, listed=False)
    assert signed.name.startswith("https://h/a.csv?")
    assert "s3cr3t" not in signed.name


def test_patterns_match_within_and_across_folders() -> None:
    found = compile_pattern("in/**/*.csv")
    assert [bool(found.fullmatch(key)) for key in ("in/a.csv", "in/x/y/a.csv", "in/a.csv.gz", "out/a.csv")] == [
        1,
        1,
        0,
        0,
    ]
    assert compile_pattern("in/*.csv").fullmatch("in/x/a.csv") is None
    assert compile_pattern("a?.csv").fullmatch("ab.csv")
    assert compile_pattern("a[1].csv").fullmatch("a[1].csv")
    assert literal_prefix("in/2026-*/**") == "in/2026-"
