"""Where the attempts of a run may connect to, and what the egress gateway reported of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from penstock_sdk import protocol as wire
from penstock_sdk.manifest import egress_rules

from penstock_operator import alerts
from penstock_operator.alerts import NewAlert
from penstock_operator.ids import AttemptNumber, ConnectionUid, RunId
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all
from penstock_operator.runs.attempt_store import AttemptOutcome, CarriedAttempt

SHOWN_DENIALS = 3
ALERT = "EgressDenied"
REMEDY = "declare it in network.egress of the manifest, or correct spec.config"


@dataclass(frozen=True)
class Denial:
    """A destination that an attempt was denied."""

    host: str
    port: int
    reason: str

    def __str__(self) -> str:
        """Say what was denied, and why."""
        return f"{self.host}:{self.port} ({self.reason})"


def allowed_destinations(attempt: CarriedAttempt) -> list[wire.EgressDestination]:
    """Return the destinations of an attempt: those of its manifest, with the config that its run is pinned to."""
    rules = egress_rules(attempt.manifest, attempt.spec.config)
    return [wire.EgressDestination(host=rule.host, port=rule.port, private=rule.private) for rule in rules]


async def record_report(
    db: DatabaseConnection, run_id: RunId, attempt: AttemptNumber, report: wire.EgressReport
) -> None:
    """Add a report of the gateway to the attempt's record."""
    if report.sent or report.received:
        await execute(
            db,
            "UPDATE penstock.run_attempts SET egress_sent = egress_sent + %(sent)s,"
            " egress_received = egress_received + %(received)s WHERE run_id = %(run)s AND attempt = %(attempt)s",
            run=run_id,
            attempt=attempt,
            sent=report.sent,
            received=report.received,
        )
    for denial in report.denials:
        await execute(
            db,
            """
            INSERT INTO penstock.egress_denials AS known (run_id, attempt, host, port, reason)
            SELECT %(run)s, %(attempt)s, %(host)s, %(port)s, %(reason)s
            WHERE (SELECT count(*) FROM penstock.egress_denials WHERE run_id = %(run)s AND attempt = %(attempt)s)
                < %(most)s
            ON CONFLICT (run_id, attempt, host, port) DO UPDATE SET times = known.times + 1
            """,
            run=run_id,
            attempt=attempt,
            host=denial.host,
            port=denial.port,
            reason=denial.reason,
            most=wire.MAX_DENIALS,
        )


async def denials_of(db: DatabaseConnection, run_id: RunId, attempt: AttemptNumber) -> list[Denial]:
    """Return the destinations that an attempt was denied, oldest first."""
    return await fetch_all(
        db,
        Denial,
        "SELECT host, port, reason FROM penstock.egress_denials WHERE run_id = %(run)s AND attempt = %(attempt)s"
        " ORDER BY denied_at, host, port",
        run=run_id,
        attempt=attempt,
    )


def denied_ending(ending: AttemptOutcome, denials: Sequence[Denial]) -> AttemptOutcome:
    """Return the end of an attempt that was denied a destination, whatever its connector said of it."""
    shown = "; ".join(str(denial) for denial in denials[:SHOWN_DENIALS])
    more = f"; and {len(denials) - SHOWN_DENIALS} more" if len(denials) > SHOWN_DENIALS else ""
    message = f"the egress gateway denied {shown}{more}: {REMEDY}"
    said = f"the connector said: {ending.message}" if ending.phase != "succeeded" and ending.message else ""
    return replace(
        ending,
        phase="failed",
        reason="EgressDenied",
        error_class="ConfigError",
        message=message,
        operator_message=" ".join(filter(None, (said, ending.operator_message)))[:4000],
    )


async def open_denial_alerts(
    db: DatabaseConnection, uid: ConnectionUid, run_id: RunId, denials: Sequence[Denial]
) -> None:
    """Open an alert for each destination; one that is open stays as it is."""
    told = [NewAlert("", ALERT, f"{denial.host}:{denial.port}", f"egress denied: {denial}") for denial in denials]
    await alerts.open_alerts(db, uid, run_id, told)


async def resolve_denial_alerts(db: DatabaseConnection, uid: ConnectionUid) -> None:
    """Resolve the alerts: a run came through without a denial."""
    await alerts.resolve_alerts_of_kind(db, uid, ALERT)
