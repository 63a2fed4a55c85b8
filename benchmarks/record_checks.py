"""What it costs to encode records of many kinds, all checks included, without compression; CPU, lowest of many passes.

Each kind is set against its raw limit in the same run: msgspec's `encode_lines` for dicts, splitting a page into
`msgspec.Raw` for pages. To compare two trees, name the folder of the other one's SDK; both are loaded into this process:

    git worktree add ../base COMMIT
    python benchmarks/record_checks.py ../base/connector-sdk/src
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import msgspec
from penstock_faker_generate.connector import SCHEMAS, records

COUNT, BATCH, PASSES = 10_000, 500, 15
MODULES = ("contract", "protocol", "_runtime.encode", "_runtime.rejects")
Row = dict[str, Any]


@dataclass(frozen=True)
class Tree:
    """The modules of one SDK."""

    contract: ModuleType
    protocol: ModuleType
    encode: ModuleType
    rejects: ModuleType


def load(folder: str | None = None) -> Tree:
    """Import the SDK of a folder beside those that are loaded already; without one, the installed SDK."""
    for name in [name for name in sys.modules if name.split(".")[0] == "penstock_sdk"]:
        del sys.modules[name]
    sys.path[:0] = [folder] if folder else []
    modules = [importlib.import_module(f"penstock_sdk.{name}") for name in MODULES]
    del sys.path[: 1 if folder else 0]
    return Tree(*modules)


def kinds() -> Iterator[tuple[str, list[Row]]]:
    """Yield records of many kinds."""
    draw = random.Random(1)  # noqa: S311 - not a secret
    people = [dict(record) for record in records(0, "people", 0, COUNT)]
    yield "people", people
    yield (
        "nulls",
        [{**row, "balance": None if n % 3 else row["balance"], "deleted_at": None} for n, row in enumerate(people)],
    )
    yield "nested nulls", [{**row, "more": {"a": None, "b": [1, None]}} for row in people]
    yield "floats", [{"n": n, **{f"f{i}": draw.random() * 1000 for i in range(10)}} for n in range(COUNT)]
    yield (
        "60 columns",
        [
            {"n": n, **{f"column_{i}": n * i if i % 3 else f"text {n * i}" for i in range(60)}}
            for n in range(COUNT // 5)
        ],
    )
    yield "2 columns", [{"n": n, "v": n * 3} for n in range(COUNT)]
    yield "nested", [{"n": n, "o": [{"k": [{"x": n, "y": [n, str(n)]} for _ in "abc"]}] * 2} for n in range(COUNT // 4)]
    yield "long digits", [{"n": n, "uid": f"{10**19 + n}", "hex": f"{n * 10**20:032x}"} for n in range(COUNT)]
    yield "escapes", [{"n": n, "text": f'a line\nwith "quotes"\\ and é 中文 {n}'} for n in range(COUNT)]
    yield "long text", [{"n": n, "text": "lorem ipsum dolor " * 300} for n in range(COUNT // 20)]


def batches(rows: list[Row]) -> list[list[Row]]:
    """Return the rows in batches."""
    return [rows[first : first + BATCH] for first in range(0, len(rows), BATCH)]


def forms(rows: list[Row]) -> Iterator[tuple[str, list[Any], Callable[[Any], object]]]:
    """Yield the rows in each form that a batch may have, with what its raw limit does to one."""
    made = batches(rows)
    yield "dicts", made, msgspec.json.Encoder().encode_lines
    arrays = [json.dumps(batch, separators=(",", ":")).encode() for batch in made]
    yield "array", arrays, msgspec.json.Decoder(list[msgspec.Raw]).decode
    lines = [b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in batch) for batch in made]
    yield "lines", lines, msgspec.json.Decoder(msgspec.Raw).decode_lines


def encoding(tree: Tree, made: list[Any]) -> Callable[[], None]:
    """Return what encodes all of the batches as a run does, with the default rules for records that do not fit."""
    envelope = tree.encode.Envelope("team", "people", "faker-generate-0.1.0", "people", "0193e0c7a5b87c1d9d3b", 1, 1)
    stream = tree.contract.Stream(name="people", schema=SCHEMAS["people"], primary_key=("n",))
    validator = tree.rejects.RecordValidator(envelope, stream, tree.protocol.RejectRules(), str)

    def encode() -> None:
        encoder, chunker = tree.encode.LineEncoder(envelope, 1, "now"), tree.encode.Chunker("people")
        for batch in made:
            for chunk in chunker.chunks(batch):
                lines = encoder.lines(validator.rows(chunk), "upsert")
                chunker.learn(len(chunk.rows), len(lines))

    return encode


def limit(made: list[Any], step: Callable[[Any], object]) -> Callable[[], None]:
    """Return the raw limit of the batches."""

    def run() -> None:
        for batch in made:
            step(batch)

    return run


def lowest(works: list[Callable[[], None]]) -> list[float]:
    """Return the lowest CPU seconds of each; they take turns, so that all have the same neighbours on the machine."""
    seconds = [math.inf] * len(works)
    for turn in range(PASSES):
        for place in range(len(works)) if turn % 2 else reversed(range(len(works))):
            began = time.process_time()
            works[place]()
            seconds[place] = min(seconds[place], time.process_time() - began)
    return seconds


def main() -> None:
    """Measure each kind in each form, and print ratios."""
    trees = [load(), *(load(folder) for folder in sys.argv[1:2])]
    gc.freeze()
    for kind, rows in kinds():
        for form, made, step in forms(rows):
            raw, ours, *others = lowest([limit(made, step), *(encoding(tree, made) for tree in trees)])
            each = ours / len(rows) * 1e6
            line = f"{kind:13} {form:6} {ours / raw:5.2f} times the raw limit, {each:6.2f} us a record"
            print(line + "".join(f", {ours / other:5.2f} times the other tree" for other in others), flush=True)


if __name__ == "__main__":
    main()
