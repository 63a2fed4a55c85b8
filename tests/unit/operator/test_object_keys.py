"""Keys of objects: each says what it is of, and none is longer than S3 takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.bronze.keys import object_key, place_of, room_for_stream_name, stream_name_bytes
from penstock_operator.ids import RunId
from penstock_operator.limits import MAX_ATTEMPT_OBJECTS, MAX_KEY_BYTES, MAX_PREFIX_BYTES
from penstock_operator.resources.models import ConnectionSpec
from penstock_operator.runs.selection import select
from penstock_operator.settings import SettingsError, s3_settings
from penstock_sdk.protocol import DiscoveredStream, ObjectKind

RUN = RunId("019abc0000001234567890")
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", min_size=1)
PREFIXES = st.text("abcdefghijklmnopqrstuvwxyz/é", max_size=MAX_PREFIX_BYTES // 2)
STREAMS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=253)


def offered(name: str) -> DiscoveredStream:
    return DiscoveredStream.model_validate({"name": name, "schema": {"type": "object"}})


@given(
    prefix=PREFIXES,
    owner=st.tuples(NAMES.filter(lambda name: len(name) <= 63), NAMES.filter(lambda name: len(name) <= 253)),
    stream=STREAMS,
    numbers=st.tuples(st.integers(1, 999_999), st.integers(1, 999), st.integers(1, MAX_ATTEMPT_OBJECTS)),
    kind=st.sampled_from(["data", "rejected"]),
)
def test_a_stream_is_refused_or_all_its_keys_fit(
    prefix: str, owner: tuple[str, str], stream: str, numbers: tuple[int, int, int], kind: ObjectKind
) -> None:
    generation, attempt, sequence = numbers
    key = object_key(prefix, (*owner, stream), generation, (RUN, attempt, sequence), kind)
    found = select(
        ConnectionSpec.parse(SPEC), [offered(stream)], {}, RUN, None, 1, room_for_stream_name(prefix, *owner, RUN)
    )
    if found.refusals:
        assert f"takes {stream_name_bytes(stream):,} bytes" in found.refusals[0].message
        return
    assert len(key.encode()) <= MAX_KEY_BYTES
    place = place_of(prefix, key)
    assert place is not None
    assert place.object is not None
    assert (place.tenant, place.connection, place.object.stream) == (*owner, stream)


SPEC = {"connector": {"name": "faker", "method": "generate", "version": "^0.1"}}


def test_a_name_in_latin_letters_always_has_room() -> None:
    room = room_for_stream_name("p" * MAX_PREFIX_BYTES, "n" * 63, "c" * 253, RUN)
    assert stream_name_bytes("s" * 253) <= room


def test_a_prefix_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(SettingsError, match="PENSTOCK_S3_PREFIX has 130 bytes; 128 is the most"):
        s3_settings({"PENSTOCK_S3_BUCKET": "b", "PENSTOCK_S3_PREFIX": "é" * 65})
