"""Certificates of a release, made for a test. They are for `localhost` too, so that servers on loopback can present them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from penstock_operator.certificates.issuing import ServiceNames
from penstock_operator.certificates.renewal import Lifetimes, StoredCertificates, renewed
from penstock_operator.certificates.stores import renew_folder
from penstock_operator.ids import Namespace

NAMES = ServiceNames(Namespace("penstock-system"), ("penstock", "penstock-egress"))
NO_OVERLAP = Lifetimes(overlap=timedelta(0))


def renewed_folder(
    folder: Path, *, after_days: float = 0, rotate: bool = False, lifetimes: Lifetimes | None = None
) -> StoredCertificates:
    """Make or renew the certificates of a folder, as `penstock certificates` would after so many days."""
    now = datetime.now(UTC) + timedelta(days=after_days)
    return renew_folder(folder, lambda stored: renewed(stored, NAMES, now, lifetimes, rotate=rotate))
