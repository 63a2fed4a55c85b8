"""State changes that annotations ask for, so that kubectl is enough to ask for one. Pure.

    penstock.io/resetState:  TOKEN [STREAM,STREAM…]          the streams named, or all
    penstock.io/rewindState: TOKEN RUN [STREAM,STREAM…]      to the state in which the run left them

The token is any word that was not used before; the words are separated by blanks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock_operator.ids import RunId
from penstock_operator.resources.documents import Metadata
from penstock_operator.resources.models import RESET_STATE, REWIND_STATE
from penstock_operator.state.admin import Order, Reset, RewindToRun
from penstock_operator.state.history import RequestedAction

ANNOTATIONS: dict[RequestedAction, str] = {"reset": RESET_STATE, "rewind": REWIND_STATE}


@dataclass(frozen=True)
class StateRequest:
    """One annotation: its token and its order. Without an order, `problem` says why the text cannot be understood."""

    action: RequestedAction
    token: str
    order: Order | None
    problem: str = ""


def requests(annotations: Mapping[str, str]) -> list[StateRequest]:
    """Return the requests of the annotations."""
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
    return StateRequest("rewind", token, RewindToRun(RunId(run_id), _streams(names)))


def _streams(text: str) -> tuple[str, ...]:
    return tuple(name for name in (word.strip() for word in text.split(",")) if name)


def author_of(metadata: Metadata, annotation: str) -> str:
    """Return who set an annotation, as far as the API server tells: the field manager, such as kubectl-annotate."""
    manager = metadata.managers.get(annotation)
    return f"annotation (by {manager})" if manager else "annotation"
