"""Whether a run may begin, by what it is expected to cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_sdk.protocol import StreamEstimate

from penstock_operator.resources.models import Budget

SHOWN = 3
MEASURES = {"records": "records", "bytes": "bytes", "apiCalls": "api_calls"}
"""The fields of spec.budget, and the same fields of the models."""


def totals(streams: Mapping[str, StreamEstimate]) -> dict[str, int]:
    """Return the sum of each measure over the streams that know it; one that no stream knows is left out."""
    known = {name: _known(streams, field) for name, field in MEASURES.items()}
    return {name: sum(found.values()) for name, found in known.items() if found}


def _known(streams: Mapping[str, StreamEstimate], field: str) -> dict[str, int]:
    found = {stream: getattr(estimate, field) for stream, estimate in streams.items()}
    return {stream: number for stream, number in found.items() if number is not None}


def over_budget(budget: Budget | None, streams: Mapping[str, StreamEstimate]) -> str:
    """Say what is over the budget, with the numbers; nothing when the run may begin. What is not known is not over."""
    allowed = {name: getattr(budget, field) for name, field in MEASURES.items()} if budget else {}
    found = [
        f"spec.budget.{name}: the run is expected to take {total:,} {_words(name)} ({_largest(streams, name)}),"
        f" and {allowed[name]:,} are allowed"
        for name, total in totals(streams).items()
        if allowed.get(name) is not None and total > allowed[name]
    ]
    return "; ".join(found) + ": raise it, select fewer streams, or set spec.since" if found else ""


def _words(name: str) -> str:
    return "API calls" if name == "apiCalls" else name


def _largest(streams: Mapping[str, StreamEstimate], name: str) -> str:
    known = sorted(_known(streams, MEASURES[name]).items(), key=lambda known: -known[1])
    more = f", and {len(known) - SHOWN} more streams" if len(known) > SHOWN else ""
    return ", ".join(f"{stream} {number:,}" for stream, number in known[:SHOWN]) + more


def as_document(streams: Mapping[str, StreamEstimate]) -> dict[str, Any]:
    """Return what the run's row keeps."""
    return {
        **totals(streams),
        "streams": {stream: estimate.model_dump(exclude_none=True) for stream, estimate in streams.items()},
    }
