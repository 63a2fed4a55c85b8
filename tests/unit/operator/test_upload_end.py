"""The collector forgets a grant only when nothing can be uploaded with it any more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from penstock_operator.bronze.store import UPLOAD_EXPIRY, BronzeStore, ObjectContent
from penstock_operator.retention.batches import RUN_AGE, CollectionContext
from penstock_operator.settings import Retention, S3Settings

STORE = BronzeStore(S3Settings("http://127.0.0.1:9", "bronze", region="us-east-1", access_key="k", secret_key="s"))


def forgotten_before(now: datetime) -> datetime:
    """Return the moment of which the collector forgets grants."""
    unused: Any = None
    return CollectionContext(unused, STORE, Retention(), now).uploads_over


def test_a_grant_outlives_its_url() -> None:
    url, _ = STORE.presign("a/key", ObjectContent(1, "0" * 64))
    (seconds,) = parse_qs(urlsplit(url).query)["X-Amz-Expires"]
    granted = datetime(2026, 5, 1, tzinfo=UTC)
    ends = granted + timedelta(seconds=int(seconds))
    assert timedelta(seconds=int(seconds)) == UPLOAD_EXPIRY
    assert forgotten_before(ends) < granted, "an upload that began in the last second may still go on"


def test_a_runs_rows_outlive_the_urls_of_its_attempts() -> None:
    """A grant whose attempt is gone is judged by its own age, though its URL may have been signed again at the end."""
    now = datetime(2026, 5, 1, tzinfo=UTC)
    assert now - RUN_AGE < forgotten_before(now)
