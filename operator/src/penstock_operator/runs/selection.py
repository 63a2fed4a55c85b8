"""Which streams an attempt reads, and from where. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from penstock_sdk.protocol import DiscoveredStream, Mode, ReadWindow, SelectedStream, StreamsRequest

from penstock_operator.runs.drift import Policy
from penstock_operator.runs.refusals import Invalid

State = dict[str, Any]
BEFORE_THE_FIRST = 1_000_000_000_000
"""The number before a window's first checkpoint; migration 0007 says why it is no stream's."""


@dataclass(frozen=True)
class Choice:
    """One stream to read, and what to do when it drifts."""

    stream: str
    policy: Policy
    selected: SelectedStream


def select(
    spec: dict[str, Any],
    offered: list[DiscoveredStream],
    states: dict[str, State],
    run_id: str,
    names: dict[str, str] | None = None,
) -> list[Choice]:
    """Return the streams to read in order, each with where to go on. Without a selection, all are read in full.

    `names` says which stream a name means: a stream with an id of its own may have been renamed since it was selected.
    Raises Invalid when the source does not offer a selected stream, or not in the selected mode.
    """
    by_name = {stream.identity: stream for stream in offered}
    wanted: list[dict[str, Any]] = spec.get("streams") or [{"name": stream.identity} for stream in offered]
    chosen = list[Choice]()
    for index, each in enumerate(wanted):
        name, mode = (names or {}).get(each["name"], each["name"]), each.get("mode", "full")
        if name not in by_name:
            known = ", ".join(sorted(by_name)[:20]) or "none"
            message = f"spec.streams[{index}].name: the source offers no stream {name!r}; it offers: {known}"
            raise Invalid(message)
        if mode not in by_name[name].modes:
            message = f"spec.streams[{index}].mode: stream {name!r} cannot be read {mode}: it has {by_name[name].modes}"
            raise Invalid(message)
        policy: Policy = each.get("schemaPolicy") or spec.get("schemaPolicy") or "evolve"
        chosen.append(Choice(name, policy, selected(name, mode, states.get(name), run_id)))
    if len({choice.stream for choice in chosen}) != len(chosen):
        message = "spec.streams: two of the names mean the same stream; name it once"
        raise Invalid(message)
    return chosen


def windowed(choices: list[Choice], window: ReadWindow, request: StreamsRequest) -> list[Choice]:
    """Return the choices with the window to read again. Raises Invalid for a stream, or an SDK, that cannot."""
    if "window" not in request.abilities:
        raise Invalid(
            "the connector's SDK is too old to read a window again: use a version that is built with a newer one"
        )
    able = {stream.identity for stream in request.streams if stream.windows}
    unable = sorted({choice.stream for choice in choices} - able)
    if unable:
        raise Invalid(
            f"the connector cannot read {', '.join(unable[:20])} by a span of time; name the streams to read again"
            f" (--stream), of: {', '.join(sorted(able)[:20]) or 'none'}"
        )
    return [replace(choice, selected=_in_window(choice.selected, window)) for choice in choices]


def _in_window(selected: SelectedStream, window: ReadWindow) -> SelectedStream:
    number = selected.checkpoint or BEFORE_THE_FIRST
    return selected.model_copy(update={"window": window, "checkpoint": number})


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
