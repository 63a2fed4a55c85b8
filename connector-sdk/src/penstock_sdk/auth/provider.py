"""Requests to the server that issues tokens, and the errors that its answers are."""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import httpx

from penstock_sdk._causes import chain_of_causes
from penstock_sdk._retry_after import retry_after
from penstock_sdk.auth.shared_credentials import LoginContext
from penstock_sdk.errors import AuthenticationError, ConfigError, ConnectorError, TransientError
from penstock_sdk.json_types import JsonObject

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
LONGEST_ANSWER_SECONDS: Final = 60.0
MAX_ANSWER_BYTES: Final = 1024 * 1024
TRANSIENT_STATUSES = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
)
SERVER_ERROR = 500
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
WRONG_REQUESTS = ("invalid_request", "unsupported_grant_type", "invalid_target", "unsupported_response_type")
SOAP_FAULT = re.compile(rb"<(?:[\w-]+:)?Fault[\s>]")
"""A refusal in SOAP, which SOAP 1.1 sends with HTTP 500."""
TLS_REFUSAL = re.compile(r"alert.*(?:certificate|unknown ca|decrypt error|handshake failure)", re.IGNORECASE)
ERROR_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,60}")


class AnswerLostError(TransientError):
    """The provider got the request, and its answer did not arrive."""


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """An answer of a provider."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def is_success(self) -> bool:
        """Return True for a 2xx status."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def is_html(self) -> bool:
        """Return True if the body is a page for people, whatever its type says."""
        begin = self.body[:500].lstrip().lower()
        return begin.startswith((b"<!doctype html", b"<html")) or "html" in self.headers.get("Content-Type", "").lower()

    def document(self) -> JsonObject | None:
        """Return the JSON object of the body; None if it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


class Provider:
    """The server behind one URL of a login. `url_name` is the field of the manifest, for messages."""

    def __init__(
        self, url: str, url_name: str, context: LoginContext, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self.url, self.url_name, self._context = url, url_name, context
        self.host = httpx.URL(url).host
        self._ssl_context = ssl_context
        self._http: httpx.Client | None = None
        self._lock = threading.Lock()

    def send(self, method: str, *, headers: Mapping[str, str], content: bytes | None) -> ProviderAnswer:
        """Send a request, and return the answer whole. Raises TransientError or ConfigError if there is none.

        Redirects are not followed: a login is sent to the host that the manifest names and to no other.
        """
        try:
            answer = self._send(method, headers, content)
        except httpx.HTTPError as error:
            raise self._network_error(error) from None
        if HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST:
            target = httpx.URL(self.url).join(answer.headers.get("Location", "")).host or "another URL"
            raise ConfigError(
                f"{self.host} redirects the login to {target}, where credentials are not sent: correct {self.url_name}"
            )
        is_fault = answer.status == HTTPStatus.INTERNAL_SERVER_ERROR and SOAP_FAULT.search(answer.body) is not None
        if answer.status in TRANSIENT_STATUSES or (answer.status >= SERVER_ERROR and not is_fault):
            raise TransientError(
                f"{self.host} is not available for the login: it answers HTTP {answer.status}",
                retry_after=retry_after(answer.headers),
            )
        return answer

    def _send(self, method: str, headers: Mapping[str, str], content: bytes | None) -> ProviderAnswer:
        end = time.monotonic() + LONGEST_ANSWER_SECONDS
        body = bytearray()
        with self._client().stream(method, self.url, headers=dict(headers), content=content) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise ConfigError(
                        f"{self.host} answers a login with more than {MAX_ANSWER_BYTES:,} bytes: correct {self.url_name}"
                    )
                if time.monotonic() > end:
                    raise httpx.ReadTimeout("the answer takes too long")
            return ProviderAnswer(response.status_code, response.headers, bytes(body))

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._http is None:
                verify: ssl.SSLContext | bool = True if self._ssl_context is None else self._ssl_context
                self._http = httpx.Client(timeout=TIMEOUT, verify=verify, follow_redirects=False)
            return self._http

    def _network_error(self, error: httpx.HTTPError) -> ConnectorError:
        certificate = _certificate_problem(error)
        if certificate:
            return ConfigError(
                f"the certificate of {self.host} is not valid ({certificate}): correct {self.url_name}, or the certificate"
            )
        detail = type(error).__name__
        if self._ssl_context is not None and TLS_REFUSAL.search(str(error).replace("_", " ")):
            return AuthenticationError(
                f"{self.host} refuses client_certificate in the TLS handshake: put a certificate that it trusts, and its client_key,"
                " into the Secret",
                operator_message=str(error)[:300],
            )
        if isinstance(error, httpx.ProxyError) and "403" in str(error):
            return ConfigError(f"the platform does not allow connections to {self.host}: declare it in network.egress")
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
            return ConfigError(f"{self.url_name} is not a URL: correct it")
        return self._lost(error, detail)

    def _lost(self, error: httpx.HTTPError, detail: str) -> TransientError:
        """Return the error for a provider that cannot be reached, or whose answer did not arrive whole."""
        if isinstance(error, NEVER_SENT):
            return TransientError(f"{self.host} cannot be reached for the login", operator_message=detail)
        if isinstance(error, httpx.DecodingError):
            message = f"the answer of {self.host} to the login is not encoded as its header says"
            return AnswerLostError(message, operator_message=detail)
        return AnswerLostError(f"{self.host} does not answer the login completely", operator_message=detail)

    def refused(self, answer: ProviderAnswer, credentials: str) -> ConnectorError:
        """Return the error for an answer that is no token: `credentials` are the names of what was sent."""
        document = answer.document() or {}
        code = _error_code(document)
        detail = self._context.without_secrets(str(document.get("error_description") or document.get("message") or ""))
        said = f" ({code}{f': {detail}' if detail else ''})" if code else f" (HTTP {answer.status})"
        if code in ("temporarily_unavailable", "server_error"):
            return TransientError(f"{self.host} is not available for the login{said}")
        wrong = self._wrong_request(answer, document, code)
        if wrong:
            return ConfigError(f"{self.host} {wrong[0]}{said}: {wrong[1]}")
        return AuthenticationError(
            f"{self.host} refuses {credentials}{said}: wrong, expired or revoked; put valid values into the Secret"
        )

    def _wrong_request(self, answer: ProviderAnswer, document: JsonObject, code: str) -> tuple[str, str] | None:
        """Return what is wrong with the request itself, and the remedy; None if the credentials are refused."""
        correct_url = f"correct {self.url_name}"
        is_refusal = answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        if not document and answer.is_html and not is_refusal:
            return "answers the login with an HTML page instead of JSON", correct_url
        if code == "invalid_scope":
            return "does not grant the scopes that the connector requests", "grant them to the client"
        if code in WRONG_REQUESTS:
            return "does not accept the request", "the manifest's description of the login is wrong"
        if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE):
            return "has no login at this address", correct_url
        if answer.is_success and not code:
            return "gives an answer to the login that is not what the manifest describes", correct_url
        return None


def _error_code(document: JsonObject) -> str:
    found = document.get("error")
    inner = found.get("code") or found.get("type") if isinstance(found, dict) else found
    return inner if isinstance(inner, str) and ERROR_CODE.fullmatch(inner) else ("error" if found else "")


def error_code(answer: ProviderAnswer) -> str:
    """Return the code of an OAuth 2.0 error; empty if the answer has none."""
    return _error_code(answer.document() or {})


def _certificate_problem(error: BaseException) -> str:
    """Return why a certificate is not valid, from the chain of causes; empty for other errors."""
    for cause in chain_of_causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
    found = re.search(r"certificate verify failed: ([\w '.,-]+)", str(error))
    return found[1] if found else ""
