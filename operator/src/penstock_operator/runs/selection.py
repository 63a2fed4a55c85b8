"""Which streams an attempt reads, and what became of their schemas. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from penstock_sdk.protocol import DiscoveredStream, Mode, SelectedStream

from penstock_operator.runs.refusals import Invalid

State = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """How a stream differs from what the registry knows of it."""

    kind: str
    message: str


def fingerprint(stream: DiscoveredStream) -> str:
    """Return a digest of what consumers rely on: schema, keys and cursor field."""
    seen = {"schema": stream.schema_, "key": stream.primary_key, "cursor": stream.cursor_field}
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()


def changes(old: dict[str, Any], new: DiscoveredStream) -> list[Change]:
    """Return what changed between the registry's version of a stream and the one discovered, field by field."""
    before, after = old["schema"].get("properties", {}), new.schema_.get("properties", {})
    found = [Change("FieldAdded", f"field {name!r} is new") for name in sorted(after.keys() - before.keys())]
    found += [Change("FieldRemoved", f"field {name!r} is gone") for name in sorted(before.keys() - after.keys())]
    both = sorted(before.keys() & after.keys())
    found += [
        Change("FieldChanged", f"field {name!r} has another type") for name in both if before[name] != after[name]
    ]
    if list(old["primary_key"]) != new.primary_key:
        found.append(Change("PrimaryKeyChanged", f"the primary key was {old['primary_key']}, is {new.primary_key}"))
    if old["cursor_field"] != new.cursor_field:
        found.append(Change("CursorFieldChanged", f"the cursor field was {old['cursor_field']}, is {new.cursor_field}"))
    return found


def select(
    spec: dict[str, Any], offered: list[DiscoveredStream], states: dict[str, State], run_id: str
) -> list[SelectedStream]:
    """Return the streams to read in order, each with where to go on. Without a selection, all are read in full.

    Raises Invalid when the source does not offer a selected stream, or not in the selected mode.
    """
    by_name = {stream.name: stream for stream in offered}
    wanted: list[tuple[str, Mode]] = [(each["name"], each.get("mode", "full")) for each in spec.get("streams", [])]
    wanted = wanted or [(stream.name, "full") for stream in offered]
    for index, (name, mode) in enumerate(wanted):
        if name not in by_name:
            known = ", ".join(sorted(by_name)[:20]) or "none"
            message = f"spec.streams[{index}].name: the source offers no stream {name!r}; it offers: {known}"
            raise Invalid(message)
        if mode not in by_name[name].modes:
            message = f"spec.streams[{index}].mode: stream {name!r} cannot be read {mode}: it has {by_name[name].modes}"
            raise Invalid(message)
    return [selected(name, mode, states.get(name), run_id) for name, mode in wanted]


def selected(name: str, mode: Mode, state: State | None, run_id: str) -> SelectedStream:
    """Return one stream with where to go on.

    A full read goes on only within its own run; an incremental one from wherever the last run stood.
    """
    if state is None:
        return SelectedStream(name=name, mode=mode)
    same_run = state["run_id"] == run_id
    return SelectedStream(
        name=name,
        mode=mode,
        cursor=state["cursor"] if mode == "incremental" or same_run else None,
        done=same_run and state["done"],
        checkpoint=state["checkpoint"],
        generation=state["generation"],
    )
