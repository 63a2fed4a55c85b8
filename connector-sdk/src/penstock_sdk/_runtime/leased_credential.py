"""A credential that several pods share and that its use replaces: used by one pod at a time, stored before it is used again.

The pod asks the platform for a lease. It gets the lease, or the token that another pod got, or has to wait. With the lease it uses
the credential, and stores the new one with the token before it returns. If the answer of the provider is lost, the lease is
given back as unanswered, so that the next holder can say what has happened if the provider then refuses the credential.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.client import RunClient
from penstock_sdk._runtime.credential_store import CredentialStore
from penstock_sdk.auth import Issued, LocalCredential
from penstock_sdk.auth.provider import AnswerLostError
from penstock_sdk.errors import AttemptEnded, AuthenticationError, ConnectorError, TransientError
from penstock_sdk.failpoints import reach

log = logging.getLogger("penstock")
PATIENCE_SECONDS: Final = wire.CREDENTIAL_LEASE_SECONDS * 1.5
LONGEST_PAUSE_SECONDS: Final = 20.0
"""How old a lease may be when the credential is used. A process that was paused for longer asks for it again."""


@dataclass(frozen=True, slots=True)
class LeaseClock:
    """The clock of leases: it goes on while the process is paused."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class LeasedCredential:
    """A credential of the Secret that other pods may use too. Thread-safe."""

    def __init__(self, client: RunClient, store: CredentialStore, name: str, clock: LeaseClock | None = None) -> None:
        self._client, self._store, self._name = client, store, name
        self._clock = clock or LeaseClock()
        self._lock = threading.Lock()
        self._interrupted = False

    def issue(self, refused: str | None, request: Callable[[str], Issued]) -> Issued:
        """Return a token that another pod got, or the one that `request` gets."""
        with self._lock:
            end = self._clock.now() + PATIENCE_SECONDS
            while True:
                lease, asked_at = secrets.token_urlsafe(24), self._clock.now()
                answer = self._ask(lease, refused)
                if answer is None:
                    return self._without_lease(request)
                if answer.credential:
                    self._store.replace(self._name, answer.credential.value)
                if answer.token is not None:
                    return self._issued(answer.token)
                if answer.granted:
                    self._interrupted = self._interrupted or answer.interrupted
                    issued = self._use(lease, asked_at, request)
                    if issued is not None:
                        return issued
                    end = self._clock.now() + PATIENCE_SECONDS
                if self._clock.now() > end:
                    raise TransientError(
                        f"another run has used {self._name} for {PATIENCE_SECONDS:.0f} s; the next attempt asks for it again"
                    )
                self._clock.sleep(answer.wait_seconds)

    def _ask(self, lease: str, refused: str | None) -> wire.CredentialLeaseResponse | None:
        return self._client.lease_credential(
            wire.CredentialLeaseRequest(
                name=self._name,
                seed=self._store.seed(self._name),
                known=_digest(self._value()),
                refused=_digest(refused) if refused else None,
                lease=lease,
            )
        )

    def _value(self) -> str:
        return self._store.values()[self._name]

    def _issued(self, token: wire.IssuedToken) -> Issued:
        self._store.conceal(token.value)
        return Issued(self._value(), token.value, token.lifetime, token.age)

    def _without_lease(self, request: Callable[[str], Issued]) -> Issued:
        """Use the credential on a platform that has no leases."""
        keep = LocalCredential(self._value(), lambda value: self._store.keep(self._client, self._name, value))
        return keep.issue(None, request)

    def _use(self, lease: str, asked_at: float, request: Callable[[str], Issued]) -> Issued | None:
        """Use the credential under a lease; None if it must be asked for again."""
        used = self._value()
        if self._clock.now() - asked_at > LONGEST_PAUSE_SECONDS:
            self._release(lease)
            return None
        try:
            issued = request(used)
        except AnswerLostError:
            self._release(lease, unanswered=True)
            raise
        except AuthenticationError as error:
            self._release(lease)
            raise self._explained(error) from None
        except BaseException:
            self._release(lease)
            raise
        reach("credentials.issued")
        self._interrupted = False
        token = wire.IssuedToken(value=issued.token, lifetime=issued.lifetime)
        stored = self._client.store_leased(
            wire.CredentialRequest(
                name=self._name,
                value=issued.credential,
                seed=self._store.seed(self._name),
                lease=lease,
                replaces=_digest(used),
                token=token,
            )
        )
        if not stored:
            return None
        self._store.replace(self._name, issued.credential)
        self._store.conceal(issued.token)
        return issued

    def _release(self, lease: str, *, unanswered: bool = False) -> None:
        request = wire.CredentialReleaseRequest(
            name=self._name, seed=self._store.seed(self._name), lease=lease, unanswered=unanswered
        )
        with contextlib.suppress(ConnectorError, AttemptEnded):  # the lease ends by its time
            self._client.release_credential(request)

    def _explained(self, error: AuthenticationError) -> AuthenticationError:
        """Return the error with what has happened before, if an earlier run used the credential and did not store the answer."""
        if not self._interrupted:
            return error
        log.warning("an earlier use of %s has no stored answer", self._name)
        return AuthenticationError(
            f"{error.message}. An earlier run was interrupted while it used {self._name}: the provider has replaced the value, and"
            " its answer was lost",
            operator_message=error.operator_message,
        )


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
