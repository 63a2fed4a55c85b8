"""A token for the read API is for nothing else, and no other token is for the read API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from kubernetes.aio.client import ApiClient, Configuration
from penstock_operator.api.token_review import READ_AUDIENCE, KubernetesAuthenticator
from penstock_operator.errors import Unauthenticated
from penstock_operator.settings import read_audiences
from penstock_sdk.protocol import TOKEN_AUDIENCE
from pytest_httpserver import HTTPServer

from tests.fakes.api_server import FakeApiServer, FakeToken

API_SERVER = "https://kubernetes.default.svc"


@dataclass
class Tokens:
    """The API server, which knows a token for each audience by the audience's own name."""

    kubernetes: ApiClient


@pytest.fixture
async def tokens(httpserver: HTTPServer) -> AsyncIterator[Tokens]:
    """An API server with three tokens, and one of an authenticator that knows no audiences."""
    server = FakeApiServer()
    for audience in (READ_AUDIENCE, TOKEN_AUDIENCE, API_SERVER):
        server.tokens[audience] = FakeToken("team", "pod", "uid", (audience,))
    server.tokens["oidc"] = FakeToken("team", "pod", "uid", knows_audiences=False)
    async with ApiClient(Configuration(host=server.serve(httpserver))) as kubernetes:
        yield Tokens(kubernetes)


async def test_the_read_api_takes_tokens_for_itself_alone(tokens: Tokens) -> None:
    authenticator = KubernetesAuthenticator(tokens.kubernetes, read_audiences({}))
    assert await authenticator.holder(READ_AUDIENCE) == "system:serviceaccount:team:default"
    for token in (TOKEN_AUDIENCE, API_SERVER, "oidc"):
        with pytest.raises(Unauthenticated):
            await authenticator.holder(token)
        with pytest.raises(Unauthenticated):
            await authenticator.person(token, "list", "team")


async def test_the_run_api_refuses_a_persons_token(tokens: Tokens) -> None:
    with pytest.raises(Unauthenticated):
        await KubernetesAuthenticator(tokens.kubernetes).pod(READ_AUDIENCE)


async def test_without_audiences_the_read_api_takes_what_the_api_server_takes(tokens: Tokens) -> None:
    assert read_audiences({"PENSTOCK_READ_AUDIENCES": ""}) == ()
    assert read_audiences({"PENSTOCK_READ_AUDIENCES": "a, b"}) == ("a", "b")
    authenticator = KubernetesAuthenticator(tokens.kubernetes, ())
    assert await authenticator.holder("oidc") == "system:serviceaccount:team:default"
