"""Grants to upload: for which streams, of which objects, and how many."""

from __future__ import annotations

from penstock_operator import limits
from penstock_operator.errors import Invalid, Mismatch
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.runs import bronze_objects
from penstock_operator.runs.attempt_store import HeldAttempt
from penstock_operator.runs.bronze_objects import Grant, GrantTotals


def check_allowed(attempt: HeldAttempt, stream: str) -> None:
    """Raise Invalid unless the attempt has a verdict for the stream, and the verdict allows to read it."""
    if stream in attempt.refused:
        message = f"stream {stream!r} is refused in this attempt: {attempt.refused[stream]}"
        raise Invalid(message)
    if stream not in attempt.streams:
        message = (
            f"stream {stream!r} has no verdict in this attempt: it is not selected, or its discovery was not posted"
        )
        raise Invalid(message)


async def record(db: DatabaseConnection, wanted: list[Grant]) -> list[Grant]:
    """Record the grants and return them; of a sequence number that is granted already, the grant that there is.

    Raises Mismatch when a number is granted for other content, and Invalid beyond the limits of an attempt.
    """
    totals = await bronze_objects.insert_grants(db, wanted)
    _check_limits(totals)
    granted = await bronze_objects.grants_of(db, wanted[0], [grant.sequence for grant in wanted])
    for grant in wanted:
        if granted[grant.sequence].content != grant.content:
            message = (
                f"object {grant.sequence} of stream {grant.stream!r} is granted already, with another size or checksum"
            )
            raise Mismatch(message)
    return [granted[grant.sequence] for grant in wanted]


def _check_limits(totals: GrantTotals) -> None:
    allowed = (
        (
            totals.open_objects,
            limits.MAX_OPEN_OBJECTS,
            "objects that are not committed; the connector must yield cursors more often",
        ),
        (
            totals.open_bytes,
            limits.MAX_OPEN_BYTES,
            "bytes that are not committed; the connector must yield cursors more often",
        ),
        (totals.objects, limits.MAX_ATTEMPT_OBJECTS, "objects"),
        (totals.bytes, limits.MAX_ATTEMPT_BYTES, "bytes"),
    )
    for found, limit, unit in allowed:
        if found > limit:
            message = f"an attempt may upload at most {limit:,} {unit}"
            raise Invalid(message)
