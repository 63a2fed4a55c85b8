"""State changes asked for by annotation, for who has kubectl and no command line of ours. Pure.

    penstock.io/resetState:  TOKEN [STREAM,STREAM…]          the streams named, or all
    penstock.io/rewindState: TOKEN RUN [STREAM,STREAM…]      to where the run left them

The token is any word that was not used before; the words are separated by blanks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock_operator.resources.documents import Metadata
from penstock_operator.resources.models import RESET_STATE, REWIND_STATE
from penstock_operator.state.admin import Action, Order, Reset, RewindToRun

ANNOTATIONS: dict[str, str] = {"reset": RESET_STATE, "rewind": REWIND_STATE}


@dataclass(frozen=True)
class StateRequest:
    """One annotation: its token, and what it asks for; `problem` says why that cannot be told."""

    action: Action
    token: str
    order: Order | None
    problem: str = ""


def requests(annotations: Mapping[str, str]) -> list[StateRequest]:
    """Return what the annotations ask for."""
    found = []
    if annotations.get(RESET_STATE, "").strip():
        found.append(_reset(annotations[RESET_STATE]))
    if annotations.get(REWIND_STATE, "").strip():
        found.append(_rewind(annotations[REWIND_STATE]))
    return found


def _reset(text: str) -> StateRequest:
    token, _, rest = text.strip().partition(" ")
    return StateRequest("reset", token, Reset(_streams(rest)))


def _rewind(text: str) -> StateRequest:
    token, _, rest = text.strip().partition(" ")
    run_id, _, names = rest.strip().partition(" ")
    if not run_id:
        return StateRequest("rewind", token, None, f"{REWIND_STATE}: write 'TOKEN RUN' or 'TOKEN RUN STREAM,STREAM'")
    return StateRequest("rewind", token, RewindToRun(run_id, _streams(names)))


def _streams(text: str) -> tuple[str, ...]:
    return tuple(name for name in (word.strip() for word in text.split(",")) if name)


def author_of(metadata: Metadata, annotation: str) -> str:
    """Return who set an annotation, as far as the API server tells: the field manager, such as kubectl-annotate."""
    manager = metadata.managers.get(annotation)
    return f"annotation (by {manager})" if manager else "annotation"
