"""Each API is an application of its own: the port of one does not answer the calls of the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from penstock_operator.api.app import BOTH_APIS, Api, create_app
from penstock_operator.api.services import Services


def tags_by_path(apis: tuple[Api, ...]) -> dict[str, str]:
    """Return the tag of each path of an application."""
    services = SimpleNamespace(protocol=None, pool=None, authenticator=SimpleNamespace(person=None), logs=None)
    document = create_app(cast("Services", services), apis).openapi()
    return {path: operation["tags"][0] for path, methods in document["paths"].items() for operation in methods.values()}


@pytest.mark.parametrize(("api", "other"), [("run", "read API"), ("read", "run API")])
def test_an_api_has_its_own_routes_and_the_health_checks(api: Api, other: str) -> None:
    found = tags_by_path((api,))
    assert set(found.values()) == {f"{api} API", "health"}
    whole = tags_by_path(BOTH_APIS)
    assert found == {path: tag for path, tag in whole.items() if tag != other}
    assert len(found) > 10
