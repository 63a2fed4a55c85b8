"""The run API as a pod calls it. Every call is repeated until it is answered; a repetition changes nothing."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import httpx
from pydantic import BaseModel

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.egress_gateway import EgressGateway
from penstock_sdk._runtime.platform_trust import platform_trust, refused_certificate
from penstock_sdk.errors import AttemptFenced, AttemptUnauthenticated, ConfigError, DefectError, TransientError
from penstock_sdk.failpoints import reach

log = logging.getLogger("penstock")
Answer = TypeVar("Answer", bound=BaseModel)

OLDEST_PROTOCOL = 2
"""The oldest version of the messages that this SDK understands. In version 1, a grant named no size and no checksum."""
RETRY_SECONDS = 600.0
BUCKET_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
FIRST_WAIT, LONGEST_WAIT = 0.2, 15.0
SERVER_ERROR, FORBIDDEN, NOT_FOUND, CONFLICT, PRECONDITION_FAILED = 500, 403, 404, 409, 412
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
RETRYABLE_CODES = ("not_ready", "unavailable")
CONFIG_ERROR_CALLS = ("start", "streams", "credentials")


@dataclass
class Upload:
    """An object to upload. `may_exist`: an earlier try had no clear answer, so the bucket may have the object already."""

    body: bytes
    may_exist: bool = False


class GrantExpired(Exception):  # noqa: N818 - not an error: another grant is requested
    """The presigned grant is no longer valid."""


class PlatformUnavailableError(TransientError):
    """The run API or the bucket does not answer or refuses uploads, so no stream can continue."""


@dataclass
class RetryPolicy:
    """How long a call is retried. A pod survives minutes without the server or the bucket."""

    seconds: float = RETRY_SECONDS
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


class RunClient:
    """The calls of the run API, and the upload to the bucket. Thread-safe: the heartbeat has its own thread."""

    def __init__(
        self,
        url: str,
        token: str,
        retry_policy: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        ca_certificates: str = "",
    ) -> None:
        self._retry_policy = retry_policy or RetryPolicy()
        self._trusted = platform_trust(ca_certificates)  # shared by all clients: reading the certificates takes 40 ms
        base = f"{url.rstrip('/')}/v1/attempts/"
        self._http = httpx.Client(
            base_url=base, timeout=30.0, transport=transport, verify=self._trusted, trust_env=False
        )
        self._bucket = httpx.Client(timeout=BUCKET_TIMEOUT, transport=transport, verify=self._trusted)
        self._token = token
        self.own_traffic: Callable[[], AbstractContextManager[None]] = nullcontext
        """Entered around each request to the platform, where the connections of the connector are checked."""

    def use_gateway(self, egress_url: str, *, for_bucket: bool) -> EgressGateway:
        """Return the egress gateway with the run's token, after `start`. `for_bucket`: objects are uploaded through it too."""
        gateway = EgressGateway(egress_url, self._token, self._trusted)
        if for_bucket:
            self._bucket.close()
            self._bucket = httpx.Client(timeout=BUCKET_TIMEOUT, verify=self._trusted, proxy=gateway.proxy_url)
        return gateway

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._bucket.close()

    def start(self, request: wire.StartRequest) -> wire.StartResponse:
        """Claim the attempt. Later calls carry the run token of the response."""
        answer = self._call("start", request, wire.StartResponse)
        if answer.protocol < OLDEST_PROTOCOL:
            message = "the run API is older than this SDK: upgrade Penstock, then the images of connectors"
            raise TransientError(message)
        self._token = answer.run_token
        self._retry_policy.seconds = answer.limits.patience_seconds or self._retry_policy.seconds
        return answer

    def streams(self, request: wire.StreamsRequest) -> wire.StreamsResponse:
        """Post the streams of discover()."""
        return self._call("streams", request, wire.StreamsResponse)

    def estimate(self, request: wire.EstimateRequest) -> None:
        """Send the expected cost of the attempt. Raises ConfigError if it exceeds the connection's budget.

        An older server has neither this call nor budgets.
        """
        response = self._answer("estimate", request)
        if response.status_code != NOT_FOUND:
            _raise_for(response, of_config=True)

    def uploads(self, request: wire.UploadsRequest) -> wire.UploadsResponse:
        """Request grants."""
        return self._call("uploads", request, wire.UploadsResponse)

    def checkpoint(self, request: wire.CheckpointRequest) -> wire.CheckpointResponse:
        """Commit objects and their cursor."""
        return self._call("checkpoints", request, wire.CheckpointResponse)

    def keep_credential(self, request: wire.CredentialRequest) -> wire.CredentialResponse:
        """Store a rotated credential."""
        return self._call("credentials", request, wire.CredentialResponse)

    def lease_requests(self, request: wire.RateLimitRequest) -> wire.RateLimitResponse | None:
        """Ask for requests to a source whose rate limit is shared. None: an older server does not know this call."""
        response = self._answer("rate-limit", request)
        if response.status_code == NOT_FOUND:
            return None
        _raise_for(response)
        return wire.RateLimitResponse.model_validate_json(response.content)

    def lease_credential(self, request: wire.CredentialLeaseRequest) -> wire.CredentialLeaseResponse | None:
        """Ask for a token, or for the right to get one; None: an older server has no leases."""
        response = self._answer("credentials/lease", request)
        if response.status_code == NOT_FOUND:
            return None
        _raise_for(response, of_config=True)
        return wire.CredentialLeaseResponse.model_validate_json(response.content)

    def release_credential(self, request: wire.CredentialReleaseRequest) -> None:
        """Give a lease back."""
        self._call("credentials/release", request, wire.CredentialReleaseResponse)

    def store_leased(self, request: wire.CredentialRequest) -> bool:
        """Store what was got under a lease; return False if another attempt was faster."""
        response = self._answer("credentials", request)
        error = None if response.is_success else _error_of(response)
        if error is not None and error.code == "mismatch":
            return False
        _raise_for(response, of_config=True)
        return True

    def egress_report(self, report: wire.EgressReport) -> None:
        """Report the destinations that the attempt was denied."""
        self._call("egress/report", report, wire.EgressReportResponse)

    def heartbeat(self, request: wire.HeartbeatRequest) -> wire.HeartbeatResponse:
        """Report that the attempt is alive. Tried once, because the next heartbeat follows soon."""
        response = self._post("heartbeat", request)
        _raise_for(response)
        return wire.HeartbeatResponse.model_validate_json(response.content)

    def finish(self, request: wire.FinishRequest) -> wire.FinishResponse:
        """Report the end of the attempt."""
        return self._call("finish", request, wire.FinishResponse)

    def _post(self, path: str, request: BaseModel) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        with self.own_traffic():
            return self._http.post(path, content=request.model_dump_json(by_alias=True), headers=headers)

    def _answer(self, path: str, request: BaseModel) -> httpx.Response:
        def attempt() -> httpx.Response | None:
            response = self._post(path, request)
            return None if _is_retryable(response) else response

        reach(f"{path}.asked")
        response = self._retry(f"the run API ({path})", attempt)
        reach(f"{path}.answered")
        return response

    def _call(self, path: str, request: BaseModel, answer: type[Answer]) -> Answer:
        response = self._answer(path, request)
        _raise_for(response, of_config=path in CONFIG_ERROR_CALLS)
        return answer.model_validate_json(response.content)

    def upload(self, grant: wire.UploadGrant, upload: Upload) -> None:
        """Upload an object. Raises GrantExpired if its grant is no longer valid.

        A key belongs to one object of one attempt. If the bucket already has the key after a try without a clear answer, that
        try has arrived, whichever of the key's grants it used. Without such a try, the object is not ours.
        """
        reach("object.asked")
        response = self._retry("the bucket", lambda: self._put(grant, upload))
        reach("object.sent")
        if response.status_code == FORBIDDEN:
            raise GrantExpired
        arrived_before = response.status_code == PRECONDITION_FAILED and upload.may_exist
        if not response.is_success and not arrived_before:
            message = f"the bucket refused an object: HTTP {response.status_code}"
            raise PlatformUnavailableError(message, operator_message=response.text[:500])

    def _put(self, grant: wire.UploadGrant, upload: Upload) -> httpx.Response | None:
        try:
            with self.own_traffic():
                response = self._bucket.put(grant.url, content=upload.body, headers=grant.headers)
        except NEVER_SENT:
            raise
        except httpx.TransportError:
            upload.may_exist = True
            raise
        if response.status_code < SERVER_ERROR and response.status_code != CONFLICT:
            return response
        upload.may_exist = True
        return None

    def _retry(self, what: str, attempt: Callable[[], httpx.Response | None]) -> httpx.Response:
        end, wait, last = self._retry_policy.clock() + self._retry_policy.seconds, FIRST_WAIT, "no answer"
        untrusted = ""
        while True:
            try:
                response = attempt()
                if response is not None:
                    return response
                last = "it is not available"
            except httpx.TransportError as error:
                last = type(error).__name__
                refused = refused_certificate(what, error)
                if refused and refused != untrusted:
                    log.warning("%s", refused)
                untrusted = refused or untrusted
            if self._retry_policy.clock() > end:
                message = untrusted or f"{what} did not answer for {self._retry_policy.seconds:.0f} s"
                raise PlatformUnavailableError(message, operator_message=last)
            self._retry_policy.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            wait = min(wait * 2, LONGEST_WAIT)


def _error_of(response: httpx.Response) -> wire.ApiError | None:
    try:
        return wire.ApiError.model_validate_json(response.content)
    except ValueError:
        return None


def _is_retryable(response: httpx.Response) -> bool:
    if response.is_success:
        return False
    error = _error_of(response)
    return error.code in RETRYABLE_CODES if error else response.status_code >= SERVER_ERROR


def _raise_for(response: httpx.Response, *, of_config: bool = False) -> None:
    if response.is_success:
        return
    error = _error_of(response)
    if error is None:
        message = f"the run API answered HTTP {response.status_code}"
        raise DefectError(message, operator_message=response.text[:500])
    if error.code == "fenced":
        raise AttemptFenced(error.message)
    if error.code == "unauthenticated":
        raise AttemptUnauthenticated(error.message)
    if error.code == "invalid" and of_config:
        raise ConfigError(error.message)
    raise DefectError(f"the run API refused a call: {error.message}")
