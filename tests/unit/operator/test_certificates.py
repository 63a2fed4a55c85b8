"""The release's certificates: what the CA can sign, and every moment of its replacement, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.aio.client.exceptions import ApiException
from penstock_operator.certificates.issuing import (
    CertificatesError,
    ServiceNames,
    new_authority,
    new_serving_certificate,
)
from penstock_operator.certificates.renewal import CA_KEY, Lifetimes, StoredCertificates, renewed, summary
from penstock_operator.certificates.stores import renew_folder, renew_secret
from penstock_operator.ids import Namespace

NAMES = ServiceNames(Namespace("penstock-system"), ("penstock", "penstock-egress"))
HOST = "penstock.penstock-system.svc"
LIVES = Lifetimes()
START = datetime(2027, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def accepts(bundle: str, certificate: str, now: datetime, host: str = HOST) -> bool:
    """Say whether a client that trusts the bundle accepts a server with the certificate."""
    trusted = x509.load_pem_x509_certificates(bundle.encode())
    verifier = PolicyBuilder().store(Store(trusted)).time(now).build_server_verifier(x509.DNSName(host))
    try:
        verifier.verify(x509.load_pem_x509_certificate(certificate.encode()), [])
    except VerificationError:
        return False
    return True


def test_a_client_accepts_each_service_and_no_other_host() -> None:
    made = renewed(None, NAMES, START)
    assert all(accepts(made.ca_bundle, made.certificate, START, host) for host in NAMES.hosts())
    assert "penstock-egress.penstock-system.svc.cluster.local" in NAMES.hosts()
    assert not accepts(made.ca_bundle, made.certificate, START, "other.penstock-system.svc")


@pytest.mark.parametrize("host", ["api.example.com", "penstock.other.svc", "penstock-system.svc.example.com"])
def test_a_certificate_of_another_host_is_refused_although_the_ca_signed_it(host: str) -> None:
    authority = new_authority(NAMES, START, 10 * DAY)
    source = SimpleNamespace(hosts=lambda: (host,))
    signed = new_serving_certificate(authority, source, START, DAY)  # type: ignore[arg-type]
    verifier = (
        PolicyBuilder().store(Store([authority.certificate])).time(START).build_server_verifier(x509.DNSName(host))
    )
    with pytest.raises(VerificationError):
        verifier.verify(signed.certificate, [])


def test_nothing_is_renewed_before_it_is_due() -> None:
    made = renewed(None, NAMES, START)
    assert renewed(made, NAMES, START + LIVES.serving / 3 - timedelta(minutes=1)) is made
    assert renewed(made, NAMES, START - DAY) is made, "a clock that went back renews nothing"


def test_a_serving_certificate_is_renewed_after_a_third_of_its_life_by_the_same_ca() -> None:
    made = renewed(None, NAMES, START)
    later = renewed(made, NAMES, START + LIVES.serving / 3)
    assert later.certificate != made.certificate
    assert later.ca_bundle == made.ca_bundle


def test_a_new_service_gets_a_certificate_at_once_from_the_same_ca() -> None:
    made = renewed(None, NAMES, START)
    more = ServiceNames(NAMES.namespace, (*NAMES.services, "penstock-read"))
    later = renewed(made, more, START + DAY)
    assert later.ca_bundle == made.ca_bundle
    assert accepts(made.ca_bundle, later.certificate, START + DAY, "penstock-read.penstock-system.svc")


def test_a_new_ca_is_trusted_before_it_signs() -> None:
    made = renewed(None, NAMES, START)
    early = renewed(made, NAMES, START + DAY, rotate=True)
    assert early.ca_bundle.startswith(made.ca_bundle)
    assert early.certificate == made.certificate
    assert "does not sign yet" in summary(early)
    assert renewed(early, NAMES, START + DAY, rotate=True) is early, "one rotation at a time"
    signing = renewed(early, NAMES, START + DAY + LIVES.overlap)
    assert signing.ca_bundle == early.ca_bundle
    assert not signing.next_ca_key
    assert not accepts(made.ca_bundle, signing.certificate, START + DAY + LIVES.overlap)
    assert accepts(early.ca_bundle, signing.certificate, START + DAY + LIVES.overlap)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    gaps=st.lists(st.integers(1, 20), min_size=60, max_size=80),
    run_days=st.integers(0, 27),
    refresh_hours=st.integers(0, 48),
)
def test_each_client_accepts_each_server_at_every_moment_of_a_rotation(
    gaps: list[int], run_days: int, refresh_hours: int
) -> None:
    """A run keeps the bundle that it started with; a server and the controller read the files some hours late."""
    lives = Lifetimes(authority=200 * DAY)
    run, refresh = run_days * DAY, timedelta(hours=refresh_hours)
    history = list[tuple[datetime, StoredCertificates]]()
    stored: StoredCertificates | None = None
    now = START

    def read(moment: datetime) -> StoredCertificates:
        return next((found for at, found in reversed(history) if at <= moment), history[0][1])

    for gap in gaps:
        stored = renewed(stored, NAMES, now, lives)
        history.append((now, stored))
        for age in (timedelta(0), run / 2, run):
            for lag in (timedelta(0), refresh):
                bundle = read(now - age - lag).ca_bundle
                for serving in (stored, read(now - refresh)):
                    assert accepts(bundle, serving.certificate, now)
        now += gap * DAY
    assert len({stored.ca_bundle for _, stored in history}) > 1, "no rotation was seen"


def test_a_ca_that_expired_is_replaced_at_once() -> None:
    made = renewed(None, NAMES, START)
    late = START + LIVES.authority + DAY
    again = renewed(made, NAMES, late)
    assert accepts(again.ca_bundle, again.certificate, late)
    assert len(x509.load_pem_x509_certificates(again.ca_bundle.encode())) == 1


def test_certificates_that_cannot_be_used_are_refused_in_words() -> None:
    made = renewed(None, NAMES, START)
    files = made.files()
    with pytest.raises(CertificatesError, match=r"ca\.key is missing"):
        StoredCertificates.of_files({**files, CA_KEY: ""})
    other = renewed(None, NAMES, START)
    for wrong in ("no key", other.ca_key):
        with pytest.raises(CertificatesError, match="remove them, and all are made anew"):
            renewed(StoredCertificates.of_files({**files, CA_KEY: wrong}), NAMES, START)
    with pytest.raises(CertificatesError, match="another namespace than elsewhere"):
        renewed(made, ServiceNames(Namespace("elsewhere"), NAMES.services), START)
    assert StoredCertificates.of_files({}) is None


def test_a_key_of_another_certificate_is_replaced() -> None:
    made, other = renewed(None, NAMES, START), renewed(None, NAMES, START)
    torn = StoredCertificates.of_files({**made.files(), "tls.key": other.key})
    again = renewed(torn, NAMES, START)
    assert again.certificate != made.certificate
    assert again.key != other.key
    assert accepts(made.ca_bundle, again.certificate, START)


def test_lifetimes_that_would_interrupt_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="must not exceed rotation"):
        Lifetimes(overlap=100 * DAY)


def test_a_private_key_is_in_no_repr() -> None:
    assert "PRIVATE" not in repr(renewed(None, NAMES, START))


@dataclass
class SecretServer:
    """The part of the API server that keeps one Secret; `before_replace` runs between a read and the write after it."""

    data: dict[str, str] | None = None
    version: int = 1
    before_replace: list[Any] = field(default_factory=list)

    async def read_namespaced_secret(self, name: str, namespace: str) -> Any:
        del name, namespace
        return SimpleNamespace(data=dict(self.data or {}), metadata=SimpleNamespace(resource_version=str(self.version)))

    async def replace_namespaced_secret(self, name: str, namespace: str, secret: Any) -> None:
        del name, namespace
        if self.before_replace:
            await self.before_replace.pop()()
        if secret.metadata.resource_version != str(self.version):
            raise ApiException(status=409)
        self.version += 1
        self.data = dict(secret.data)


def test_of_two_writers_at_once_one_wins_and_the_other_keeps_its_certificates() -> None:
    server: Any = SecretServer(data={"owner": base64.b64encode(b"team").decode()})

    def renew(stored: StoredCertificates | None) -> StoredCertificates:
        return renewed(stored, NAMES, START)

    async def both() -> tuple[StoredCertificates, StoredCertificates]:
        others = list[StoredCertificates]()

        async def other_writer() -> None:
            others.append(await renew_secret(server, NAMES.namespace, "tls", renew))

        server.before_replace = [other_writer]
        ours = await renew_secret(server, NAMES.namespace, "tls", renew)
        return ours, others[0]

    ours, theirs = asyncio.run(both())
    assert ours == theirs
    assert server.version == 2
    assert server.data["owner"], "what else the Secret holds stays"


def test_a_folder_keeps_private_keys_private(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    made = renew_folder(folder, lambda stored: renewed(stored, NAMES, START))
    assert renew_folder(folder, lambda stored: renewed(stored, NAMES, START)) == made
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert {modes[name] for name in ("ca.key", "tls.key", "next-ca.key")} == {0o600}
    assert (folder / "ca.crt").read_text() == made.ca_bundle
