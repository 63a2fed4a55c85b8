"""An authorization server on loopback for logins by a person: it authorizes at once, or as a test says."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import httpx

from tests.fakes.provider import Call, FakeProvider, Reply


class FakeAuthorizationServer(FakeProvider):
    """Redirects from /authorize with a code, and issues device codes at /device.

    `redirected` changes the parameters of the redirect. `polls` are the errors that polls for a device code get, one each;
    then it is authorized. `token_fields` change the answer with the token.
    """

    def __init__(self) -> None:
        super().__init__()
        self.source = self.page
        self.asked: dict[str, str] = {}
        self.codes: set[str] = set()
        self.redirected: Callable[[dict[str, str]], dict[str, str]] = lambda query: query
        self.polls: list[str | Reply] = []
        self.device_answer: dict[str, Any] | Reply = {}
        self.token_fields: dict[str, Any] = {}
        self.authorization_url = f"{self.url}/authorize"
        self.device_url = f"{self.url}/device"

    def page(self, call: Call) -> Reply:
        """Answer a browser, or the request for a device code."""
        if call.path == "/device":
            return self.device_answer if isinstance(self.device_answer, Reply) else Reply(200, self.device())
        self.asked = {name: values[0] for name, values in call.query.items()}
        self.codes.add("code-1")
        query = self.redirected({"code": "code-1", "state": self.asked["state"]})
        return Reply(302, b"", {"Location": f"{self.asked['redirect_uri']}?{urlencode(query)}"})

    def device(self) -> dict[str, Any]:
        """The answer with a device code."""
        issued = {
            "device_code": "device-1",
            "user_code": "WDJB-MJHT",
            "verification_uri": f"{self.url}/activate",
            "expires_in": 600,
            "interval": 5,
        }
        found = {**issued, **self.device_answer} if isinstance(self.device_answer, dict) else issued
        return {name: value for name, value in found.items() if value is not None}

    def grant(self, call: Call) -> Reply:
        """Issue tokens for a code, once, to the client that has its verifier; and for a device code that is authorized."""
        form = call.form
        if form["grant_type"] == "authorization_code":
            digest = (
                base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
            )
            is_valid = form["code"] in self.codes and form["redirect_uri"] == self.asked["redirect_uri"]
            self.codes.discard(form["code"])
            if not is_valid or digest != self.asked["code_challenge"]:
                return Reply(400, {"error": "invalid_grant"})
        elif self.polls:
            reply = self.polls.pop(0)
            return reply if isinstance(reply, Reply) else Reply(400, {"error": reply})
        elif form["device_code"] != "device-1":
            return Reply(400, {"error": "invalid_grant"})
        issued = {"access_token": "access-1", "refresh_token": "refresh-1", "token_type": "Bearer", "expires_in": 60}
        answer = {**issued, **self.token_fields}
        return Reply(200, {name: value for name, value in answer.items() if value is not None})


def follow(url: str) -> httpx.Response:
    """Open a URL as a browser does, and follow the redirects."""
    return httpx.get(url, follow_redirects=True)
