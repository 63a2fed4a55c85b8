"""A source that refuses, delays, or does not answer."""

from __future__ import annotations

import secrets
import time

from penstock_sdk import protocol as wire
from penstock_sdk.errors import AuthenticationError, TransientError
from penstock_sdk.testing.checks.model import Check
from penstock_sdk.testing.fault_proxy import (
    DelayedResponse,
    ErrorResponse,
    Fault,
    FaultPlan,
    FaultProxy,
    NoResponse,
    through_proxy,
)
from penstock_sdk.testing.harness import Failed, Harness, NotApplicable, NotRun, Trial
from penstock_sdk.testing.run_api import PRODUCTION
from penstock_sdk.testing.target import Target, Variant

WAIT = 1
ATTEMPTS = 8
SLOW_SECONDS = 1.2
UNAUTHORIZED, TOO_MANY, UNAVAILABLE = 401, 429, 503
JITTER = 0.1


def wrong_credentials(harness: Harness) -> str:
    """Run with credentials that the source refuses."""
    with harness.trial(refused_target(harness)) as trial:
        trial.run_attempt()
        _expect_refusal(trial, "wrong credentials")
        if trial.total:
            raise Failed(f"{trial.total} records were committed with wrong credentials")
    return f"refused: {trial.report.error.message if trial.report and trial.report.error else ''}"


def refused_target(harness: Harness) -> Target:
    """Return the target with wrong credentials: the declared ones, or random ones."""
    target = harness.target
    if target.wrong is not None:
        return target.with_variant(target.wrong)
    if not _takes_credentials(harness):
        raise NotApplicable("the manifest declares no credentials")
    secret = harness.secrets(target)
    if not secret:
        raise NotRun("needs `credentials` that work, or `wrong`: credentials that the source refuses")
    return target.with_variant(Variant(credentials={name: f"wrong-{secrets.token_hex(12)}" for name in secret}))


def _takes_credentials(harness: Harness) -> bool:
    return any(harness.manifest_fields.credentials())


def _expect_refusal(trial: Trial, what: str) -> None:
    trial.expect(AuthenticationError.exit_code, f"{what} should end the attempt with AuthenticationError")
    error = trial.report.error if trial.report else None
    if error is None or error.message in ("", AuthenticationError().message):
        raise Failed(f"{what}: the message does not say what to fix: {error.message if error else '(none)'}")


def revoked_credentials(harness: Harness) -> str:
    """Revoke the credentials in the middle of a read, and restore them."""
    if not _takes_credentials(harness):
        raise NotApplicable("the manifest declares no credentials")
    mode, hook = harness.modes[0], harness.target.revoked
    if hook is None and harness.target.url_field is None:
        raise NotRun(
            "needs source.url (an HTTP source), or `revoked`: commands that revoke and restore the credentials"
        )
    if hook is None:
        return _revoked_by_proxy(harness, mode)
    with harness.trial(mode=mode) as trial:
        trial.run_until_killed("committed", 1)
        with hook():
            trial.run_attempt()
            _expect_refusal(trial, "revoked credentials")
        return _goes_on(harness, trial, mode, "after the credentials were restored")


def _revoked_by_proxy(harness: Harness, mode: wire.Mode) -> str:
    middle_request = max(2, (harness.requests + 1) // 2)
    plan: FaultPlan = lambda number: ErrorResponse(UNAUTHORIZED) if number >= middle_request else None  # noqa: E731 - short
    with (
        through_proxy(harness.target, plan) as (moved, proxy),
        harness.trial(moved, mode=mode, limits=PRODUCTION) as trial,
    ):
        trial.run_attempt()
        _expect_refusal(trial, f"credentials that are revoked at request {middle_request}")
        proxy.plan = lambda _number: None
        return _goes_on(harness, trial, mode, "after the credentials were restored")


def _goes_on(harness: Harness, trial: Trial, mode: wire.Mode, when: str) -> str:
    trial.run_attempt()
    trial.expect(0, f"{when} the next attempt should read to the end")
    harness.compare(trial, mode, when)
    return f"refused, and {when} no record was lost or read twice"


def throttling(harness: Harness) -> str:
    """Let the source ask the connector to wait."""
    _has_source(harness)
    mode, hook = harness.modes[0], harness.target.throttled
    if hook is None and harness.target.url_field is None:
        raise NotRun(
            "needs source.url (an HTTP source), or `throttled`: commands that make the source refuse requests for a while"
        )
    if hook is None:
        return _throttled_by_proxy(harness, mode)
    with harness.trial(mode=mode, limits=PRODUCTION) as trial:
        with hook():
            trial.run_attempt()
            trial.expect(
                TransientError.exit_code,
                "a source that refuses because of load should end the attempt with TransientError",
            )
        return _goes_on(harness, trial, mode, "after the source accepted requests again")


def _has_source(harness: Harness) -> None:
    if not harness.manifest_fields.network.egress:
        raise NotApplicable("the manifest declares no network, so there is no source to wait for")


class _Busy:
    """Refuses the first request, one in the middle and the last one, once each."""

    def __init__(self, requests: int) -> None:
        self._due = {1: TOO_MANY, (requests + 1) // 2: UNAVAILABLE, requests: TOO_MANY}
        self.refused = 0

    def __call__(self, number: int) -> Fault | None:
        """Return the fault of a request. Refused requests are not counted in the numbers of later ones."""
        status = self._due.pop(number - self.refused, None)
        if status is None:
            return None
        self.refused += 1
        return ErrorResponse(status, WAIT)


def _throttled_by_proxy(harness: Harness, mode: wire.Mode) -> str:
    busy = _Busy(harness.requests)
    with (
        through_proxy(harness.target, busy) as (moved, proxy),
        harness.trial(moved, mode=mode, limits=PRODUCTION) as trial,
    ):
        for _ in range(ATTEMPTS):
            trial.run_attempt()
            if trial.last.exit_code == 0:
                break
            _await_retry_after(trial)
        trial.expect(0, f"after {busy.refused} refusals with Retry-After the read should reach its end")
        _was_patient(proxy)
        harness.compare(trial, mode, "after answers of 429 and 503")
    return (
        f"{busy.refused} refusals (429, 503 with Retry-After: {WAIT}) in {len(trial.attempts)} attempts, no record lost"
    )


def _await_retry_after(trial: Trial) -> None:
    trial.expect(
        TransientError.exit_code,
        "after a refusal with Retry-After the connector should wait, or end with TransientError",
    )
    error = trial.report.error if trial.report else None
    if error is None or error.retry_after is None or error.retry_after < WAIT:
        retry_after = error.retry_after if error else None
        raise Failed(f"the source's Retry-After: {WAIT} was not reported: TransientError(retry_after={retry_after})")
    time.sleep(WAIT)


def _was_patient(proxy: FaultProxy) -> None:
    for (moment, refused), (following, _) in zip(proxy.requests, proxy.requests[1:], strict=False):
        if refused and following - moment < WAIT - JITTER:
            raise Failed(f"asked again {following - moment:.2f} s after a refusal with Retry-After: {WAIT}")


def slow_source(harness: Harness) -> str:
    """Delay the source, and then let it send no response at all."""
    _has_source(harness)
    requests, mode = harness.requests, harness.modes[0]
    late = {1, (requests + 1) // 2, requests}
    with (
        through_proxy(harness.target, lambda number: DelayedResponse(SLOW_SECONDS) if number in late else None) as (
            moved,
            _,
        ),
        harness.trial(moved, mode=mode, limits=PRODUCTION) as trial,
    ):
        trial.run_attempt()
        trial.expect(0, f"a source that answers after {SLOW_SECONDS} s should be read to the end")
        harness.compare(trial, mode, "from a slow source")
        if not trial.api.heartbeats:
            raise Failed(
                "the process sent no heartbeat while it waited for the source: it holds the interpreter's lock"
            )
    return f"{len(late)} responses after {SLOW_SECONDS} s; {_no_response(harness, mode, requests)}"


def _no_response(harness: Harness, mode: wire.Mode, requests: int) -> str:
    silent_from = max(1, (requests + 1) // 2) if harness.target.url_field else 1
    plan: FaultPlan = lambda number: NoResponse() if number >= silent_from else None  # noqa: E731 - short
    with (
        through_proxy(harness.target, plan) as (moved, proxy),
        harness.trial(moved, mode=mode, limits=PRODUCTION) as trial,
    ):
        trial.run_attempt()
        trial.expect(
            TransientError.exit_code, "a source that does not answer at all should end the attempt with TransientError"
        )
        waited = trial.last.seconds
        proxy.plan = lambda _number: None
        proxy.released.set()
        _goes_on(harness, trial, mode, "after the source answered again")
    return f"a source without a response was given up after {waited:.0f} s"


CHECKS = (
    Check(
        "wrong-credentials",
        "Wrong credentials end the attempt with AuthenticationError and a message that says what to fix.",
        "Raise AuthenticationError from authenticate() when the source refuses, and name the Secret's key.",
        wrong_credentials,
    ),
    Check(
        "revoked-credentials",
        "Credentials that are revoked during a read end it with AuthenticationError; committed records stay committed.",
        "Turn the source's 401 into AuthenticationError wherever a request is made, not only in authenticate().",
        revoked_credentials,
    ),
    Check(
        "throttling",
        "The connector waits if the source asks it to, and loses no record.",
        "On 429 and 503 raise TransientError(retry_after=...) with the Retry-After header's value, or wait that long.",
        throttling,
    ),
    Check(
        "slow-source",
        "A slow source is read to its end. A source that does not answer ends the attempt with TransientError.",
        "Set a timeout on every request and turn it into TransientError.",
        slow_source,
    ),
)
