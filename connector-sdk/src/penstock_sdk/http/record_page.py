"""One page: a response, and its records as JSON that is not decoded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from penstock_sdk.contract import Record
from penstock_sdk.errors import SourceContractError
from penstock_sdk.http.response import Response

T = TypeVar("T")


class RecordPage:
    """A page of records. `Batch(page.json)` passes them on without decoding them; `Batch(page.rows)` as dicts."""

    def __init__(self, response: Response, records_field: str = "") -> None:
        self.response = response
        self._field = records_field

    @cached_property
    def records(self) -> list[msgspec.Raw]:
        """The JSON of each record. Raises SourceContractError if there is no list of records."""
        raw = self.response.raw_field(self._field)
        if raw is None:
            raise SourceContractError(
                f"{self.response.place} has no field {self._field!r}, which should hold the records"
            )
        if bytes(memoryview(raw)[:4]) == b"null":
            return []
        try:
            return msgspec.json.decode(raw, type=list[msgspec.Raw])
        except msgspec.ValidationError:
            place = f"field {self._field!r} of {self.response.place}" if self._field else self.response.place
            raise SourceContractError(f"{place} is not a list of records") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SourceContractError(f"{self.response.place} is not valid JSON: {error}") from None

    @cached_property
    def json(self) -> bytes:
        """The records as one JSON array."""
        return b"[" + b",".join(self.records) + b"]"

    @cached_property
    def rows(self) -> Sequence[Record]:
        """The records as dicts. Raises SourceContractError if one is not an object."""
        return self.rows_as(dict[str, Any])

    def rows_as(self, shape: type[T]) -> list[T]:
        """Return the records as values of a type, such as a msgspec.Struct. Raises SourceContractError for any other record."""
        decoder = msgspec.json.Decoder(shape)
        try:
            return [decoder.decode(record) for record in self.records]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SourceContractError(f"{self.response.place} has a record of another shape: {error}") from None
