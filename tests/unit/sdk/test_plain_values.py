"""What the quick checks let pass, against an oracle that looks at each value in Python and reads each line with `json`.

PENSTOCK_EXAMPLES makes it try more: 60, which is the default, are 300 chunks of records for each seed, and as many pages.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
import pytest
from penstock_sdk import SourceContractError
from penstock_sdk._runtime.encode import UNENCODABLE, Chunker, encoded_rows
from penstock_sdk._runtime.strict_json import MOST_NESTED

CHUNKS = 5 * int(os.environ.get("PENSTOCK_EXAMPLES", "60"))
INTEGERS = frozenset({"id"})


@dataclass
class Price:
    """What the encoder takes as an object."""

    amount: float


class Size(msgspec.Struct):
    """What the encoder takes as an object, too."""

    width: Any


class Kind(Enum):
    """What the encoder takes by its value."""

    WORD = "a word"
    LOST = math.nan


def nest(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


COLUMNS: list[list[Any]] = [
    [1, 2**63 - 1, -(2**63), True],
    [2**64 - 1, 0, None],
    [0.5, 1e308, -1e308, 5e-324],
    [0.5, None, 2],
    ["text", "null", "", "\\ud800", "1e999", "9" * 30, "\n"],
    [True, False, 1],
    [None],
    [{"a": "text", "b": 1.5}, {"a": "null", "b": 2.5}],
    [{"a": "text"}, {}, {"b": None, "c": [None]}],
    [["x", "y"], ["z"], []],
    [[{"k": [1, {"m": 0.5}]}], [{"k": [2, {"m": None}]}]],
    [datetime(2026, 1, 1, tzinfo=UTC), None],
    [Decimal("1.5"), Decimal("NaN")],
    [b"bytes", bytearray(b"more")],
    [raw("1"), raw('"text"'), raw('{"a":[1,2]}'), raw("1.50")],
    [raw("12345678901234567890"), None, 1],
    [Price(1.5), Size(2), Kind.WORD, OrderedDict(a=1)],
    [(1, 2), (3, 4)],
    [nest(3), nest(25)],
    [10**30, 1.5],
]
BAD: list[Any] = [
    math.nan,
    math.inf,
    -math.inf,
    "\udfff",
    nest(MOST_NESTED + 1),
    object(),
    1j,
    Price(math.nan),
    Size(math.inf),
    Size(raw("1 2")),
    Kind.LOST,
    OrderedDict(a=math.nan),
    *map(
        raw, ["", " ", "1\n2", "1 2", "[3,", "4]", "NaN", "01", "'a'", '"\\ud800"', "1e400", "-1E+999", '"a', "1\x00"]
    ),
    *map(raw, ['1},{"id":9', '1,"x":2', "1,2", '"\t"', "tru", "9" * 5000, "9" * 400 + ".5", "[" * 600 + "]" * 600]),
    msgspec.Raw(b'"\xff"'),
]
HOMES: list[Callable[[Any], Any]] = [
    lambda bad: bad,
    lambda bad: {"a": bad},
    lambda bad: [1, bad],
    lambda bad: [bad],
    lambda bad: {"a": [{"b": bad}]},
    lambda bad: [[[bad, None]]],
]


def is_bad(record: Any) -> bool:
    """Look at every value, in Python, by what the documentation says of records."""
    found = [record]
    while found:
        value = found.pop()
        if isinstance(value, dict):
            found += value.values()
        elif isinstance(value, list | tuple):
            found += value
        elif isinstance(value, Price | Size):
            found.append(value.amount if isinstance(value, Price) else value.width)
        elif is_bad_value(value.value if isinstance(value, Enum) else value):
            return True
    return False


def is_bad_value(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, msgspec.Raw):
        return is_bad_text(bytes(value))
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    return isinstance(value, complex) or type(value) is object


def is_bad_text(text: bytes) -> bool:
    def finite(number: str) -> float:
        return float(number) if math.isfinite(float(number)) else refuse(number)

    def whole(number: str) -> int:
        return int(number) if len(number) <= 4000 else refuse(number)

    def refuse(_: str) -> Any:
        raise ValueError

    try:
        value = json.loads(text.decode(), parse_constant=refuse, parse_float=finite, parse_int=whole)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return True
    return depth(value) > MOST_NESTED


def depth(value: Any) -> int:
    deepest, found = 0, [(value, 1)]
    while found:
        item, level = found.pop()
        if isinstance(item, dict | list | tuple):
            deepest = max(deepest, level)
            found += [(child, level + 1) for child in (item.values() if isinstance(item, dict) else item)]
    return deepest


def is_refused(row: dict[str, Any]) -> bool:
    number = int(row["id"]) if isinstance(row["id"], int) else 0
    return is_bad(row) or depth(row) > MOST_NESTED or not -(2**63) <= number < 2**64


def chunks(seed: int) -> Iterator[list[dict[str, Any]]]:
    """Yield chunks whose rows have one shape, of one row to a few hundred; most have one bad value somewhere, or none."""
    draw = random.Random(seed)
    for _ in range(CHUNKS):
        count = draw.choice([1, 2, 7, 40, 40, 130])
        columns = {f"f{number}": draw.choice(COLUMNS) for number in range(draw.randrange(6))}
        values = {name: [draw.choice(column)] if draw.random() < 0.5 else column for name, column in columns.items()}
        rows: list[dict[str, Any]] = [
            {"id": number, **{name: draw.choice(column) for name, column in values.items()}} for number in range(count)
        ]
        spoil(draw, rows)
        yield rows


def spoil(draw: random.Random, rows: list[dict[str, Any]]) -> None:
    kind, row = draw.randrange(5), draw.choice(rows)
    if kind == 0:
        row["id"] = draw.choice([2**64, -(2**63) - 1, 10**40])
    elif kind < 4:
        bad = draw.choice(BAD)
        home = draw.choice(HOMES)(bad)
        row[draw.choice(list(row)) if draw.random() < 0.7 else "new"] = home


def lines(rows: Any, *, split: bool = False) -> list[bytes] | None:
    try:
        encoded = encoded_rows(msgspec.json.Encoder(), rows, INTEGERS, split=split)
    except UNENCODABLE:
        return None
    assert encoded.size == len(b"".join(encoded))
    return [bytes(row) for row in encoded]


@pytest.mark.parametrize("seed", range(2))
def test_records_pass_as_they_are_or_not_at_all(seed: int) -> None:
    refused = 0
    for rows in chunks(seed):
        found = lines(rows)
        assert (found is None) == any(map(is_refused, rows)), rows
        refused += found is None
        for line, row in zip(found or (), rows, strict=bool(found)):
            assert b"\n" not in line
            assert not is_bad_text(line)
            assert json.loads(line) == json.loads(msgspec.json.encode(row))
    assert CHUNKS / 4 < refused < CHUNKS * 3 / 4 + CHUNKS / 10


GOOD_TEXTS = [
    "1",
    "18446744073709551615",
    "1e300",
    "-1.5E-999",
    "0.12345678901234567890123",
    '"\\ud83d\\ude00"',
    '"\\\\ud800"',
    '"550e8400-e29b-41d4-a716-446655440000"',
    '"0e0000000000 99999999999999999999999999"',
    '":00000000000000000000000"',
    '"a e b, e, e"',
    '"\\n\\u00e9\u00e9"',
    "null",
    "[1,{}]",
    '{"a":{"b":[]}}',
    "[" * 400 + "]" * 400,
    "9" * 30,
]
BAD_TEXTS = [
    "1e400",
    "1E+0400",
    "-12345678901234567890.5e300",
    "9" * 4001,
    "9" * 310 + ".0",
    "1" + "0" * 500 + "e5",
    '"\\ud800"',
    '"\\uDC00\\ud83d"',
    "[" * 500 + "]" * 500,
]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("array", [True, False])
def test_pages_pass_as_they_are_or_not_at_all(seed: int, array: bool) -> None:  # noqa: FBT001 - a case
    draw, refused = random.Random(seed), 0
    for _ in range(CHUNKS):
        items = [page_item(draw, number) for number in range(draw.choice([1, 2, 30]))]
        if draw.random() < 0.5:
            at = draw.randrange(len(items))
            others = ['{"id":99999999999999999999}', '{"id":-9223372036854775809}', "7", "[1]", '"{"', "null"]
            items[at] = draw.choice([*(f'{{"v":{text}}}' for text in BAD_TEXTS), *others])
        text = "[" + ", ".join(items) + "]" if array else "\n".join(items)
        found = page_lines(text.encode())
        assert (found is None) == any(map(is_refused_text, items)), items
        assert found is None or found == [item.encode() for item in items]
        refused += found is None
    assert CHUNKS / 4 < refused < CHUNKS * 3 / 4


def page_item(draw: random.Random, number: int) -> str:
    space = draw.choice(["", " ", "\t"])
    return f'{{"id":{space}{number},"v":{space}{draw.choice(GOOD_TEXTS)}{space}}}'


def page_lines(page: bytes) -> list[bytes] | None:
    chunker = Chunker("people")
    chunker.learn(1000, 1)
    try:
        (chunk,) = chunker.chunks(page)
    except SourceContractError:
        return None
    return lines(chunk.rows, split=True)


def is_refused_text(item: str) -> bool:
    if is_bad_text(item.encode()):
        return True
    value = json.loads(item)
    return not isinstance(value, dict) or not -(2**63) <= value.get("id", 0) < 2**64


def test_values_that_share_a_line_do_not_make_up_for_one_on_several() -> None:
    assert lines([{"id": 1, "v": raw(text)} for text in ("1 2", "[3,", "4]")]) is None
    assert lines([{"id": 1, "v": raw(text)} for text in ("1,2", "[3", "4]")]) is None
    assert lines([raw('{"a":1} {"b":2}'), raw('{"c":['), raw("1]}")]) is None


@pytest.mark.parametrize("count", [1, 40])
def test_records_are_as_deep_as_is_allowed(count: int) -> None:
    assert lines([{"id": 1, "v": nest(MOST_NESTED - 1)}] * count) is not None
    assert lines([{"id": 1, "v": nest(MOST_NESTED)}] * count) is None


@pytest.mark.parametrize("row", [7, "text", [1], None, raw("7")])
def test_a_record_is_an_object(row: Any) -> None:
    assert lines([row]) is None
    assert lines([{"id": 1}] * 40 + [row]) is None
