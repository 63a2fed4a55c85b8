"""What a cursor remembers of files: nothing is read twice, nothing is passed over, and it stays small."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from penstock_files_object.progress import File, Mark, Progress, Within, cursor_of
from penstock_files_object.stores import fixed_part, matcher

LOOKBACK = 10
moments = st.integers(0, 60)
batches = st.lists(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), moments), max_size=8, unique_by=lambda each: each[0]), max_size=6
)


def file(name: str, modified: int, version: str = "1", *, listed: bool = True) -> File:
    return File(f"s3://b/{name}", f'"{version}"', modified, 1, listed=listed)


def read_all(mark: Mark, files: list[File], kept: int = 5000) -> tuple[list[File], Mark]:
    """Read what is pending, each file from a cursor that went through JSON."""
    seen = []
    while pending := mark.pending(files):
        seen.append(pending[0])
        saved = msgspec.json.decode(
            msgspec.json.encode({"marks": cursor_of({"p": mark.after(pending[0], LOOKBACK, kept)})})
        )
        mark = Progress.of(saved).mark("p", None)
    return seen, mark


@given(batches)
def test_every_file_within_the_lookback_is_read_once(arrivals: list[list[tuple[str, int]]]) -> None:
    """Files arrive in any order, with moments shared or older than what was read; each is read once and none twice."""
    there: list[File] = []
    read: list[File] = []
    mark = Mark()
    for number, arriving in enumerate(arrivals):
        newest = max((each.modified for each in read), default=-1)
        there += [file(f"{name}{number}", at) for name, at in arriving if at >= newest - LOOKBACK]
        seen, mark = read_all(mark, there)
        read += seen
    assert sorted(each.path for each in read) == sorted(each.path for each in there)


@given(
    st.lists(st.tuples(st.integers(0, 500), moments), max_size=60, unique_by=lambda each: each[0]), st.integers(1, 5)
)
def test_one_listing_is_read_once_whatever_the_bound(listed: list[tuple[int, int]], kept: int) -> None:
    """The digests stay within their bound, also when more files than that share a moment."""
    files = [file(f"{name:03}", at) for name, at in listed]
    seen, mark = read_all(Mark(), files, kept)
    assert seen == sorted(files, key=lambda each: each.place)
    assert len(mark.read) <= kept
    assert read_all(mark, files, kept)[0] == []


def test_files_that_share_a_moment_are_told_apart() -> None:
    _, mark = read_all(Mark(), [file("b", 5)])
    assert [each.path for each in mark.pending([file("a", 5), file("b", 5), file("c", 5)])] == ["s3://b/a", "s3://b/c"]


def test_a_file_written_anew_is_read_again() -> None:
    _, mark = read_all(Mark(), [file("a", 5), file("b", 6)])
    assert mark.pending([file("a", 5, "2"), file("b", 6)]) == [file("a", 5, "2")]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("123")), max_size=12))
def test_the_last_version_of_each_file_is_the_last_one_read_within_one_moment(writes: list[tuple[str, str]]) -> None:
    """A file that goes back to an earlier version is read again; one that did not change is not."""
    there, last, mark = {}, {}, Mark()
    for name, version in writes:
        there[name] = file(name, 5, version)
        seen, mark = read_all(mark, list(there.values()))
        assert seen == ([there[name]] if last.get(name) != version else [])
        last[name] = version


def test_a_cursor_of_an_earlier_connector_still_says_what_was_read() -> None:
    old = Mark(read=((5, file("a", 5).digest),))
    assert old.pending([file("a", 5), file("b", 5)]) == [file("b", 5)]
    assert old.after(file("b", 6), LOOKBACK).pending([file("a", 5), file("b", 6)]) == []


def test_a_late_file_is_read_within_the_lookback_and_not_beyond() -> None:
    _, mark = read_all(Mark(), [file("a", 100)])
    assert mark.pending([file("late", 90), file("too-late", 89)]) == [file("late", 90)]


def test_an_address_of_its_own_is_known_by_its_version_alone() -> None:
    """There is nothing to pass over, so an older moment does not hide a new version."""
    _, mark = read_all(Mark(), [file("a", 1000, "1", listed=False)])
    assert mark.pending([file("a", 1000, "1", listed=False)]) == []
    assert mark.pending([file("a", 1, "2", listed=False)])
    assert len(mark.after(file("a", 1, "2", listed=False), LOOKBACK).read) == 1


def test_since_is_taken_in_and_bounds_a_path_without_a_mark_only() -> None:
    mark = Progress().mark("p", 50)
    assert mark.pending([file("a", 49), file("b", 50)]) == [file("b", 50)]
    kept = Progress({"p": Mark()}).mark("p", 50)
    assert kept.pending([file("a", 49)])


def test_a_place_within_a_file_holds_for_the_same_version_read_the_same_way_only() -> None:
    progress = Progress(within=Within("s3://b/a", '"1"', "csv", {"offset": 7}))
    assert progress.at(file("a", 5), "csv") == {"offset": 7}
    assert progress.at(file("a", 5, "2"), "csv") is None
    assert progress.at(file("a", 5), "jsonl") is None
    assert progress.at(file("b", 5), "csv") is None


def test_a_signature_in_an_address_is_in_no_cursor() -> None:
    signed = File("https://h/a.csv?sig=s3cr3t", '"1"', 5, 1, listed=False)
    assert signed.name.startswith("https://h/a.csv?")
    assert "s3cr3t" not in signed.name


def test_patterns_match_within_and_across_folders() -> None:
    found = matcher("in/**/*.csv")
    assert [bool(found.fullmatch(key)) for key in ("in/a.csv", "in/x/y/a.csv", "in/a.csv.gz", "out/a.csv")] == [
        1,
        1,
        0,
        0,
    ]
    assert matcher("in/*.csv").fullmatch("in/x/a.csv") is None
    assert matcher("a?.csv").fullmatch("ab.csv")
    assert matcher("a[1].csv").fullmatch("a[1].csv")
    assert fixed_part("in/2026-*/**") == "in/2026-"
