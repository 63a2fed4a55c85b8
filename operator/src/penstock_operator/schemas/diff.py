"""How a stream differs from what it was: `diff_schema`, and the table of classes that docs/drift.md shows. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal, get_args

from penstock_sdk.json_types import JsonSchema

from penstock_operator.schemas.types import FieldType, Path, TypeRelation, compare, fields_of

ChangeKind = Literal[
    "FieldAdded",
    "FieldRemoved",
    "FieldRenamed",
    "TypeWidened",
    "TypeNarrowed",
    "TypeChanged",
    "NullabilityGained",
    "NullabilityLost",
    "PrimaryKeyChanged",
    "CursorFieldChanged",
    "PiiAdded",
    "PiiRemoved",
]
KINDS: tuple[ChangeKind, ...] = get_args(ChangeKind)
COMPATIBLE: frozenset[str] = frozenset({"FieldAdded", "TypeNarrowed", "NullabilityLost", "PiiRemoved"})
"""A reader written for the old version copes with every record of the new one; with all other classes it may not."""
OPPOSITE: dict[ChangeKind, ChangeKind] = {
    **{kind: kind for kind in KINDS},
    "FieldAdded": "FieldRemoved",
    "FieldRemoved": "FieldAdded",
    "TypeWidened": "TypeNarrowed",
    "TypeNarrowed": "TypeWidened",
    "NullabilityGained": "NullabilityLost",
    "NullabilityLost": "NullabilityGained",
    "PiiAdded": "PiiRemoved",
    "PiiRemoved": "PiiAdded",
}
"""The class of the same change seen the other way round."""
ALIKE = 0.6
PLAIN = re.compile(r"[^.\[\]\"]+")


@dataclass(frozen=True)
class StreamShape:
    """What consumers rely on of a stream. `pii` are the fields that are declared to be personal, by their paths."""

    schema: JsonSchema
    primary_key: tuple[str, ...] = ()
    cursor_field: str | None = None
    pii: tuple[str, ...] = ()


@dataclass(frozen=True)
class SchemaChange:
    """One difference. `path` is where, as `a.b[].c`; `steps` the names of the properties on the way.

    A field that seems to be renamed has both: `path` is the old one, `renamed_to` the new one.
    """

    kind: ChangeKind
    path: str
    message: str
    steps: Path = ()
    renamed_to: str = ""

    @property
    def compatible(self) -> bool:
        """Whether a reader written for the old version copes with it."""
        return self.kind in COMPATIBLE


def diff_schema(old: StreamShape, new: StreamShape) -> list[SchemaChange]:
    """Return what changed from one shape of a stream to another, field by field, in a fixed order."""
    before, after = fields_of(old.schema), fields_of(new.schema)
    retyped = _retyped(before, after)
    hidden = [change.steps for change in retyped if change.kind == "TypeChanged"]
    found = [*_moved(before, after, hidden), *(change for change in retyped if not _beneath(change.steps, hidden))]
    return [*sorted(found, key=lambda change: (change.path, change.kind)), *_keys(old, new), *_pii(old, new)]


def show(path: Path) -> str:
    """Return a path as people write it; a name with a dot or a bracket in it is quoted."""
    shown = ""
    for step in path:
        name = "[]" if step is None else step if PLAIN.fullmatch(step) else json.dumps(step)
        shown += name if step is None or not shown else f".{name}"
    return shown


def _beneath(path: Path, places: Iterable[Path]) -> bool:
    return any(len(place) < len(path) and path[: len(place)] == place for place in places)


def _retyped(before: dict[Path, FieldType], after: dict[Path, FieldType]) -> list[SchemaChange]:
    kinds: dict[TypeRelation, ChangeKind] = {
        TypeRelation.WIDER: "TypeWidened",
        TypeRelation.NARROWER: "TypeNarrowed",
        TypeRelation.DIFFERENT: "TypeChanged",
    }
    found = list[SchemaChange]()
    for path in before.keys() & after.keys():
        old, new = before[path], after[path]
        name = f"field {show(path)!r}" if path else "the record"
        order = compare(old, new)
        if order is not TypeRelation.EQUAL:
            found.append(SchemaChange(kinds[order], show(path), f"{name} was {old.words()}, is {new.words()}", path))
        for was, is_, gained, lost in (
            (old.nullable, new.nullable, "may be null now", "is never null now"),
            (old.optional, new.optional, "may be missing now", "is never missing now"),
        ):
            if was != is_:
                kind: ChangeKind = "NullabilityGained" if is_ else "NullabilityLost"
                found.append(SchemaChange(kind, show(path), f"{name} {gained if is_ else lost}", path))
    return found


def _moved(before: dict[Path, FieldType], after: dict[Path, FieldType], hidden: list[Path]) -> list[SchemaChange]:
    """Return what came, went, and seems to have been renamed; what lies beneath such a field is not listed."""
    gone = [path for path in before if _is_news(path, after) and not _beneath(path, hidden)]
    come = [path for path in after if _is_news(path, before) and not _beneath(path, hidden)]
    renames = _renames(before, after, gone, come)
    found = [
        SchemaChange(
            "FieldRenamed",
            show(old),
            f"field {show(old)!r} is gone and {show(new)!r} is new and like it: it may have been renamed",
            new,
            show(new),
        )
        for old, new in renames
    ]
    moved = {path for pair in renames for path in pair}
    found += [
        SchemaChange("FieldRemoved", show(path), f"field {show(path)!r} is gone", path)
        for path in gone
        if path not in moved
    ]
    found += [
        SchemaChange("FieldAdded", show(path), f"field {show(path)!r} is new ({after[path].words()})", path)
        for path in come
        if path not in moved
    ]
    return found


def _is_news(path: Path, other: dict[Path, FieldType]) -> bool:
    return bool(path) and path[-1] is not None and path not in other and path[:-1] in other


def _renames(
    before: dict[Path, FieldType], after: dict[Path, FieldType], gone: list[Path], come: list[Path]
) -> list[tuple[Path, Path]]:
    """Return pairs of a like name, in the same place, holding the same, where neither has a second candidate."""
    pairs = [
        (old, new)
        for old in gone
        for new in come
        if old[:-1] == new[:-1] and _alike(str(old[-1]), str(new[-1])) and _inside(before, old) == _inside(after, new)
    ]
    return [
        (old, new)
        for old, new in pairs
        if sum(pair == old for pair, _ in pairs) == 1 and sum(pair == new for _, pair in pairs) == 1
    ]


def _inside(fields: dict[Path, FieldType], path: Path) -> dict[Path, FieldType]:
    return {place[len(path) :]: found for place, found in fields.items() if place[: len(path)] == path}


def _alike(one: str, other: str) -> bool:
    first, second = sorted(re.sub(r"[^a-z0-9]", "", name.lower()) for name in (one, other))
    return SequenceMatcher(None, first, second, autojunk=False).ratio() >= ALIKE


def _keys(old: StreamShape, new: StreamShape) -> list[SchemaChange]:
    found = list[SchemaChange]()
    if old.primary_key != new.primary_key:
        was, is_ = (", ".join(shape.primary_key) or "none" for shape in (old, new))
        found.append(SchemaChange("PrimaryKeyChanged", "", f"the primary key was {was}, is {is_}"))
    if old.cursor_field != new.cursor_field:
        message = f"the cursor field was {old.cursor_field or 'none'}, is {new.cursor_field or 'none'}"
        found.append(SchemaChange("CursorFieldChanged", "", message))
    return found


def _pii(old: StreamShape, new: StreamShape) -> list[SchemaChange]:
    came, went = sorted(set(new.pii) - set(old.pii)), sorted(set(old.pii) - set(new.pii))
    return [
        *(SchemaChange("PiiAdded", path, f"field {path!r} is declared to hold personal data") for path in came),
        *(
            SchemaChange("PiiRemoved", path, f"field {path!r} is not declared to hold personal data any more")
            for path in went
        ),
    ]
