"""An API server for tests of identity: tokens, namespaces, pods and Jobs, as a tenant or the controller made them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

PATH = re.compile(r"/(?:api/v1|apis/batch/v1)/namespaces/([^/]+)(?:/(pods|jobs)/([^/]+))?")


@dataclass
class FakeToken:
    """A service account's token, bound to a pod."""

    namespace: str
    pod: str
    pod_uid: str
    audiences: tuple[str, ...] = ("penstock",)
    username: str = ""
    knows_audiences: bool = True

    def review(self, asked: list[str]) -> dict[str, Any]:
        """Return the status of a TokenReview."""
        matching = [audience for audience in asked if audience in self.audiences]
        if asked and not matching and self.knows_audiences:
            return {"authenticated": False, "error": "token audiences are invalid"}
        extra = {
            "authentication.kubernetes.io/pod-name": [self.pod],
            "authentication.kubernetes.io/pod-uid": [self.pod_uid],
        }
        user = {"username": self.username or f"system:serviceaccount:{self.namespace}:default", "extra": extra}
        return {"authenticated": True, "user": user, "audiences": matching if self.knows_audiences else []}


@dataclass
class FakeApiServer:
    """Objects by what a path names: a namespace's name, or namespace, resource and name."""

    tokens: dict[str, FakeToken] = field(default_factory=dict)
    objects: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)

    def serve(self, server: HTTPServer) -> str:
        """Answer on a server, and return its URL."""
        server.expect_request("/apis/authentication.k8s.io/v1/tokenreviews", "POST").respond_with_handler(self._review)
        server.expect_request(PATH, "GET").respond_with_handler(self._read)
        return server.url_for("").rstrip("/")

    def put(self, *place: str, uid: str, **document: Any) -> None:
        """Create or replace an object: `namespace`, or `namespace, resource, name`."""
        metadata = {"name": place[-1], "uid": uid, **document.pop("metadata", {})}
        self.objects[place] = {"metadata": metadata, **document}

    def _review(self, request: Request) -> Response:
        spec = request.get_json()["spec"]
        token = self.tokens.get(spec["token"])
        status = token.review(spec.get("audiences") or []) if token else {"authenticated": False}
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec, "status": status}
        return Response(json.dumps(review), 201, content_type="application/json")

    def _read(self, request: Request) -> Response:
        found = PATH.fullmatch(request.path)
        assert found
        place = tuple(part for part in found.groups() if part)
        document = self.objects.get(place)
        body = document or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
        return Response(json.dumps(body), 200 if document else 404, content_type="application/json")
