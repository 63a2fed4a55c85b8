"""A window that is read again: one run whose attempts read the source's records of [start, end) once more.

What it commits goes to the streams' live generation, beside what was read before: the same keys again, told by the
run's id and the window in each envelope. Where an incremental read stands is not touched.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from penstock_sdk.manifest import Manifest

from penstock_operator import outbox
from penstock_operator.connections.connection_store import RunnableConnection
from penstock_operator.definitions import manifest_of
from penstock_operator.errors import Invalid
from penstock_operator.ids import ConnectionUid, new_run_id
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.runs import run_store
from penstock_operator.runs.run_spec import RunSpec
from penstock_operator.runs.run_store import NewRun, Run
from penstock_operator.scheduling.backfill import BackfillWindow, hold_connection, selected_spec

MOST_WAITING = 100


async def reread(db: DatabaseConnection, uid: ConnectionUid, window: BackfillWindow, now: datetime) -> str:
    """Make the run, and return its id; it waits behind what is due. Raises Invalid where it cannot be done."""
    async with db.transaction():
        connection = await hold_connection(db, uid)
        active = await run_store.active_runs(db, uid)
        manifest = await manifest_of(db, connection.definition_uid)
        spec = window_spec(connection, manifest, window, now, active)
        run_id, token = new_run_id(), f"window-{secrets.token_hex(8)}"
        new = NewRun(run_id, uid, connection.definition_uid, spec, token=token, trigger="backfill")
        await run_store.insert_run(db, new)
        await outbox.post_status(db, uid)
        return run_id


def window_spec(
    connection: RunnableConnection, manifest: Manifest | None, window: BackfillWindow, now: datetime, active: list[Run]
) -> dict[str, Any]:
    """Return the spec of the run. Raises Invalid for a window that cannot be read again, or is being. Pure."""
    where = f"connection {connection.namespace}/{connection.name}"
    if manifest is None or not manifest.capabilities.windows:
        named = f"{manifest.artifact} {manifest.version}" if manifest else "of a definition that cannot be read"
        raise Invalid(
            f"{where}: the connector {named} cannot read a span of time again (its manifest's capabilities.windows);"
            " `penstock state reset` reads a stream anew"
        )
    if not window.start < window.end:
        raise Invalid("from: must be before to")
    if window.end > now:
        raise Invalid("to: lies in the future; what is still to come is read by the runs that are due")
    span = {"start": _in_utc(window.start), "end": _in_utc(window.end)}
    spec = {**selected_spec(connection.spec, window.streams).document(), "window": span}
    asked = RunSpec.parse(spec)
    same = [run.id for run in active if (run.spec.window, run.spec.streams) == (asked.window, asked.streams)]
    if same:
        raise Invalid(f"run {same[0]} reads this window again already; wait for it or cancel it")
    if len(active) > MOST_WAITING:
        raise Invalid(f"{where} has more than {MOST_WAITING} runs that have not ended; wait for them first")
    return spec


def _in_utc(moment: datetime) -> str:
    try:
        return moment.astimezone(UTC).isoformat()
    except OverflowError:
        raise Invalid("from: lies before what a calendar has; use a later moment") from None
