"""The request for one page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from penstock_sdk.json_types import JsonObject, JsonValue

Parameter = str | int | float | bool | None
"""The value of a query parameter. A parameter that is None is not sent."""
Place = Literal["query", "body"]
"""Where a request has the parameters of the paging: in the query, or in the JSON body, at a path such as "variables.after"."""


@dataclass(frozen=True, slots=True)
class PagedRequest:
    """The request for one page. `path` is relative to the client's base URL, or an absolute URL of the same host."""

    path: str
    params: Mapping[str, Parameter]
    method: str = "GET"
    json: JsonValue = None

    def with_value(self, name: str, value: str | int, place: Place) -> PagedRequest:
        """Return the request with a parameter of the paging."""
        if place == "query":
            return replace(self, params={**self.params, name: value})
        if self.json is not None and not isinstance(self.json, Mapping):
            raise ValueError("a paginator with place='body' needs a JSON object as the body")
        return replace(self, json=_with_field(self.json or {}, name.split("."), value))

    def fingerprint(self) -> bytes:
        """Return the same bytes for the same request, and only for it."""
        params = sorted((name, str(value)) for name, value in self.params.items())
        return msgspec.json.encode([self.method, self.path, params, self.json], order="deterministic")


def _with_field(body: JsonObject, path: list[str], value: JsonValue) -> JsonObject:
    key, *rest = path
    inner = body.get(key)
    return {**body, key: _with_field(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value}
