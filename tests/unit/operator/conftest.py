"""A client of the API server, which is an HTTP server here, and its answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio import client
from penstock_operator.runs.run_spec import RunSpec
from penstock_sdk.manifest import Manifest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from tests.integration.world import MANIFEST


@pytest.fixture
async def api(httpserver: HTTPServer) -> AsyncIterator[client.ApiClient]:
    """A client of the server."""
    async with client.ApiClient(client.Configuration(host=httpserver.url_for("").rstrip("/"))) as api:
        yield api


def answered(body: dict[str, Any], status: int = 200, **headers: str) -> Response:
    """Return an answer."""
    return Response(json.dumps(body), status, headers, content_type="application/json")


def run_spec(**fields: Any) -> RunSpec:
    """Return the spec of a run, with the fields of the document given here."""
    return RunSpec.parse({"connector": {"name": "faker", "method": "generate"}, **fields})


def manifest(name: str, method: str, *methods: dict[str, Any]) -> Manifest:
    """Return the manifest of a connector with these ways to authenticate; with none, it takes no credentials."""
    ways = {"methods": list(methods) or [{"type": "none"}]}
    return Manifest.model_validate({**MANIFEST, "name": name, "method": method, "authentication": ways})
