"""Which streams an attempt reads, and from where. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from penstock_sdk.protocol import DiscoveredStream, ErrorClass, Mode, ReadWindow, SelectedStream, StreamsRequest

from penstock_operator.bronze.keys import stream_name_bytes
from penstock_operator.errors import Invalid
from penstock_operator.limits import MAX_KEY_BYTES
from penstock_operator.resources.models import ConnectionSpec, StreamSelection
from penstock_operator.resources.spelling import nearest_word
from penstock_operator.runs.state_store import State
from penstock_operator.schemas.drift_policy import Policy

NOTHING_OFFERED = (
    "the source offers no stream to these credentials: check spec.config and what the credentials may read,"
    " or name the streams in spec.streams"
)
BEFORE_THE_FIRST = 1_000_000_000_000
"""The number before a window's first checkpoint; migration 0007 says why it is no stream's."""


@dataclass(frozen=True)
class StreamChoice:
    """One stream to read, and what to do when it drifts."""

    stream: str
    policy: Policy
    selected: SelectedStream


@dataclass(frozen=True)
class StreamRefusal:
    """A selected stream that cannot be read as it is selected, and why; the others are read."""

    stream: str
    mode: Mode
    message: str
    error_class: ErrorClass = "ConfigError"


@dataclass(frozen=True)
class Selection:
    """The streams to read, in order, and those that cannot be."""

    choices: list[StreamChoice]
    refusals: list[StreamRefusal]


def select(
    spec: ConnectionSpec,
    offered: list[DiscoveredStream],
    states: Mapping[str, State],
    run_id: str,
    names: dict[str, str] | None = None,
    first_generation: int = 1,
    longest_name: int = MAX_KEY_BYTES,
) -> Selection:
    """Return the streams to read in order, each with where to go on. Without a selection, all are read in full.

    `names` says which stream a name means: a stream with an id of its own may have been renamed since it was selected.
    `longest_name` is the number of bytes that a stream's name may take in the keys of objects.
    A stream that the source does not offer, or not in the selected mode, or that is unavailable, is refused by itself. Raises Invalid when all
    are selected and the source offers none.
    """
    by_name = {stream.identity: stream for stream in offered}
    if not spec.streams and not offered:
        raise Invalid(NOTHING_OFFERED)
    streams = spec.streams or [StreamSelection(name=stream.identity) for stream in offered]
    chosen, refused = list[StreamChoice](), list[StreamRefusal]()
    for index, entry in enumerate(streams):
        name, mode = (names or {}).get(entry.name, entry.name), entry.mode
        why = _unfit(index, name, mode, by_name, {choice.stream for choice in chosen})
        if why:
            refused.append(StreamRefusal(name, mode, why))
            continue
        unavailable = by_name[name].unavailable
        if unavailable:
            refused.append(StreamRefusal(name, mode, unavailable.message, unavailable.error_class))
            continue
        if stream_name_bytes(name) > longest_name:
            refused.append(StreamRefusal(name, mode, _too_long(name, longest_name)))
            continue
        policy: Policy = entry.schema_policy or spec.schema_policy
        chosen.append(StreamChoice(name, policy, selected(name, mode, states.get(name), run_id, first_generation)))
    read = {choice.stream for choice in chosen}
    return Selection(chosen, [refusal if refusal.stream not in read else _named_again(refusal) for refusal in refused])


def _unfit(index: int, name: str, mode: Mode, by_name: dict[str, DiscoveredStream], chosen: set[str]) -> str:
    if name not in by_name:
        near = nearest_word(name, by_name)
        known = ", ".join(sorted(by_name)[:20]) or "none"
        guess = f" (nearest: {near!r})" if near else ""
        return f"spec.streams[{index}].name: the source offers no stream {name!r}; it offers: {known}{guess}"
    if mode not in by_name[name].modes:
        modes = " and ".join(by_name[name].modes)
        why = by_name[name].only_full
        because = f"; {why}" if why else ""
        return f"spec.streams[{index}].mode: stream {name!r} cannot be read {mode}: it can be read {modes}{because}"
    if name in chosen:
        return f"spec.streams[{index}].name: an entry before it means the same stream {name!r}; name it once"
    return ""


def _too_long(name: str, longest: int) -> str:
    return (
        f"stream {name!r}: its name takes {stream_name_bytes(name):,} bytes in the keys of objects, and {longest:,} are left;"
        " leave it out of spec.streams, or have the connector give it a shorter id"
    )


def _named_again(refusal: StreamRefusal) -> StreamRefusal:
    """Return the refusal under a name of its own: the stream itself is read."""
    return replace(refusal, stream=f"{refusal.stream} (named again)")


def windowed(choices: list[StreamChoice], window: ReadWindow, request: StreamsRequest) -> list[StreamChoice]:
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


def selected(name: str, mode: Mode, state: State | None, run_id: str, first_generation: int = 1) -> SelectedStream:
    """Return one stream with where to go on.

    A full read goes on only within its own run; an incremental one from wherever the last run stood.
    """
    if state is None:
        return SelectedStream(name=name, mode=mode, generation=first_generation)
    same_run = state.run_id == run_id
    return SelectedStream(
        name=name,
        mode=mode,
        cursor=state.cursor if mode == "incremental" or same_run else None,
        done=same_run and state.done,
        checkpoint=state.checkpoint,
        generation=state.generation,
    )
