"""What mypy infers in the code of a connector's author. mypy checks this file; it is never run.

An error that mypy must report has an `ignore` comment: `--strict` reports the comment if the error disappears.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import msgspec
from penstock_sdk import (
    Batch,
    Connector,
    ConnectorError,
    Cursor,
    Estimate,
    Partition,
    Stream,
    TransientError,
    Window,
)
from penstock_sdk.errors import ErrorClass
from penstock_sdk.incremental import CursorField, Watermark, follow, keyset, settled, to_utc, windows
from penstock_sdk.json_types import JsonObject
from penstock_sdk.manifest import Manifest, manifest_problems
from penstock_sdk.pii import PiiClass, suggest_fields
from penstock_sdk.testing import CheckResult, Harness, Target, run_checks


class Config(msgspec.Struct):
    """The config of the connection."""

    url: str


class Credentials(msgspec.Struct):
    """The keys of the Secret."""

    token: str


class Position(msgspec.Struct):
    """A cursor of this connector."""

    after: int


class Orders(Connector[Config, Credentials]):
    """A connector with typed config and credentials."""

    def authenticate(self) -> None:
        """Use both."""
        assert_type(self.config, Config)
        assert_type(self.credentials, Credentials)
        assert_type(self.config.url, str)
        self.config.host  # type: ignore[attr-defined]  # noqa: B018 - the config has no such field
        raise TransientError("busy", retry_after=2.5)

    def discover(self) -> Iterable[Stream]:
        """Yield one stream."""
        yield Stream(name="orders", schema={"type": "object"}, primary_key=("id",), modes=("full", "incremental"))
        yield Stream(name="orders", schema={}, modes=("partial",))  # type: ignore[arg-type]

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Iterator[Batch]:
        """Yield batches."""
        assert_type(stream.identity, str)
        assert_type(stream.partition, Partition | None)
        assert_type(stream.window, Window | None)
        field = CursorField(name="updated_at", key=("id",), overlap=timedelta(minutes=1))
        assert_type(field.watermark(cursor), Watermark)
        cursor["after"]  # type: ignore[index, call-overload]  # a cursor is any JSON value: convert it first
        assert_type(msgspec.convert(cursor, Position).after, int)
        yield from follow(self._page, field, cursor, size=100, since=since, until=settled(timedelta(minutes=1)))
        yield from keyset(self._after, ("id",), cursor, reject=self.reject)
        yield Batch([{"id": 1}], cursor={"id": 1}, op="delete")
        yield Batch([{"id": 1}], op="insert")  # type: ignore[arg-type]

    def estimate(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Estimate | None:
        """Return an estimate."""
        del stream, since, cursor
        return Estimate(records=10)

    def _page(self, start: Any) -> list[dict[str, Any]]:
        return []

    def _after(self, after: tuple[Any, ...] | None) -> list[dict[str, Any]]:
        return []


def functions_of_the_other_modules(document: JsonObject, harness: Harness) -> None:
    """Check the types of results."""
    connector = Orders(Config("https://x"), Credentials("t"))
    assert_type(connector.argument_types(), tuple[type[object], type[object]])
    assert_type(list(connector.read(Stream(name="orders", schema={}), None, None)), list[Batch])
    assert_type(to_utc("2026-01-01T00:00:00Z"), datetime)
    assert_type(list(windows(datetime.now(UTC), datetime.now(UTC), timedelta(hours=1))), list[Window])
    assert_type(manifest_problems(document), list[str])
    assert_type(Manifest.model_validate(document).credentials(), dict[str, bool])
    assert_type(suggest_fields({}), dict[str, PiiClass])
    assert_type(run_checks(harness, ()), list[CheckResult])
    assert_type(ConnectorError("x").error_class, ErrorClass)
    assert_type(Target(artifact="orders-rest").max_kills, int)
    Orders(Config("https://x"), "token")  # type: ignore[arg-type]
    Connector({}, {})  # type: ignore[abstract]
