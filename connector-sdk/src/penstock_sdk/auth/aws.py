"""AWS Signature Version 4. A signature covers the request's method, URL, time and body."""

from __future__ import annotations

import hashlib
import hmac
import re
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, unquote

import httpx

from penstock_sdk.auth.base import AUTHORIZATION, Auth
from penstock_sdk.auth.fixed_credentials import header_value
from penstock_sdk.auth.keys import AssertionClock
from penstock_sdk.auth.shared_credentials import LoginContext
from penstock_sdk.auth.templates import text_of
from penstock_sdk.errors import AuthenticationError, ConfigError
from penstock_sdk.manifest.authentication import AwsSigV4Login

ALGORITHM = "AWS4-HMAC-SHA256"
UNRESERVED: Final = "-_.~"
STORAGE_SERVICES = ("s3", "s3express", "s3-object-lambda", "s3-outposts")
"""Services whose paths are signed as they are; those of others are encoded once more and normalized."""
REFUSED = (HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED, HTTPStatus.BAD_REQUEST)

KEY_REFUSED = re.compile(
    rb"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidClientTokenId|UnrecognizedClientException|InvalidSignature"
    rb"|Expired-?Token|InvalidToken|IncompleteSignature|MissingAuthenticationToken|RequestTimeTooSkewed"
)
MOST_BYTES: Final = 16_384


class AwsSigV4Auth(Auth):
    """Signs requests with access_key_id and secret_access_key; session_token belongs to temporary keys."""

    requires_request_body = True
    credential_headers = frozenset({"authorization", "x-amz-security-token"})

    def __init__(self, context: LoginContext, login: AwsSigV4Login) -> None:
        self._key_id = header_value(context.credential("access_key_id"), "access_key_id")
        self._secret = context.credential("secret_access_key").strip()
        token = context.credentials.get("session_token", "").strip()
        self._session_token = header_value(token, "session_token") if token else ""
        self._service = text_of(login.service, context, "awsSigV4.service")
        self._region = text_of(login.region, context, "awsSigV4.region")
        for name, value in (("service", self._service), ("region", self._region)):
            if not value.replace("-", "").isalnum() or not value.isascii():
                raise ConfigError(f"spec.config: awsSigV4.{name} is not a {name} of AWS, such as s3 or eu-west-1")
        self._clock = AssertionClock()

    def apply(self, request: httpx.Request) -> None:
        """Sign a request."""
        moment = self._clock.now().strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(request.content).hexdigest()
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        query = _canonical_query(query)
        if self._service in STORAGE_SERVICES:
            path = self._canonical_path(path)  # some servers compare the path as it is sent
        request.url = request.url.copy_with(raw_path=f"{path}?{query}".encode() if query else path.encode())
        request.headers.update({"x-amz-date": moment, "x-amz-content-sha256": digest})
        if self._session_token:
            request.headers.update({"x-amz-security-token": self._session_token})
        names = sorted(name for name in request.headers if name == "host" or name.startswith("x-amz-"))
        headers = "".join(f"{name}:{' '.join(request.headers[name].split())}\n" for name in names)
        canonical = "\n".join([request.method, self._canonical_path(path), query, headers, ";".join(names), digest])
        scope = f"{moment[:8]}/{self._region}/{self._service}/aws4_request"
        to_sign = "\n".join([ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        signature = hmac.new(self._signing_key(moment[:8]), to_sign.encode(), hashlib.sha256).hexdigest()
        request.headers[AUTHORIZATION] = (
            f"{ALGORITHM} Credential={self._key_id}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
        )

    def renew(self, request: httpx.Request, response: httpx.Response) -> bool:
        """Sign again with the service's time if it differs by more than services accept."""
        del request
        return response.status_code in REFUSED and self._clock.follow(response.headers.get("Date"))

    def check(self, response: httpx.Response) -> None:
        """Raise AuthenticationError if the service refuses the keys: it answers 403, with a code in the body."""
        super().check(response)
        if response.status_code in REFUSED and isinstance(response.stream, httpx.SyncByteStream):
            found = KEY_REFUSED.search(response.read()[:MOST_BYTES])
            if found:
                raise AuthenticationError(f"{self.refusal()} ({found[0].decode()})")

    def refusal(self) -> str:
        """Return that the keys are refused."""
        temporary = ", and its session_token if the key is temporary," if self._session_token else ""
        return f"the service refuses access_key_id and secret_access_key: put a valid key{temporary} into the Secret"

    def _canonical_path(self, path: str) -> str:
        if self._service in STORAGE_SERVICES:
            return "/".join(quote(unquote(part), safe=UNRESERVED) for part in path.split("/")) or "/"
        parts: list[str] = []
        for part in path.split("/"):
            if part == "..":
                parts = parts[:-1]
            elif part not in ("", "."):
                parts.append(quote(part, safe=UNRESERVED))
        slash = "/" if path.endswith("/") and parts else ""
        return f"/{'/'.join(parts)}{slash}"

    def _signing_key(self, day: str) -> bytes:
        key = f"AWS4{self._secret}".encode()
        for part in (day, self._region, self._service, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key


def _canonical_query(query: str) -> str:
    """Return a query as it is signed, and as it is then sent, so that no server reads another one."""
    pairs = []
    for pair in query.split("&") if query else []:
        name, _, value = pair.replace("+", "%20").partition("=")
        pairs.append((quote(unquote(name), safe=UNRESERVED), quote(unquote(value), safe=UNRESERVED)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))
