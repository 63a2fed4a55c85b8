"""Maps error responses of S3 and HTTP servers to the SDK's error classes, each with its remedy."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError, SourceContractError, TransientError

from penstock_files_object.config import display_path, origin

CODE = re.compile(rb"<Code>(\w+)</Code>")
SECONDS = re.compile(r"[0-9]{1,20}(\.[0-9]{1,9})?")
LONGEST_RETRY_AFTER = 1e10
TOO_MANY_REQUESTS = 429
BUSY_STATUSES = (408, 425, TOO_MANY_REQUESTS)
THROTTLING_CODES = ("SlowDown", "RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequests")
REFUSED_STATUSES = (401, 403)
MISSING_STATUSES = (404, 410)
CHANGED_STATUSES = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
CREDENTIAL_CODES = (
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken"),
    *("TokenRefreshRequired", "AllAccessDisabled", "AccountProblem", "InvalidSecurity"),
)
KEYS_SOURCE = "the Secret that spec.secretRef names"
SESSION_OVER = f"the session has expired: put a new accessKeyId, secretAccessKey and sessionToken into {KEYS_SOURCE}"
KEY_REMEDIES = {
    "InvalidAccessKeyId": f"the store does not know the key: correct accessKeyId and secretAccessKey in {KEYS_SOURCE}",
    "SignatureDoesNotMatch": f"the secretAccessKey does not match the accessKeyId: correct accessKeyId and secretAccessKey in {KEYS_SOURCE}",
    "ExpiredToken": SESSION_OVER,
    "TokenRefreshRequired": SESSION_OVER,
    "InvalidToken": f"the sessionToken does not belong to these keys: correct it in {KEYS_SOURCE}, or leave it out",
    "AllAccessDisabled": "the bucket's owner has disabled it: ask the owner",
    "AccountProblem": "the account of the keys has a problem: ask its administrator",
}
PERMANENT_STATUSES = (HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
WRONG_REGION_CODES = (
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "TemporaryRedirect",
    "IllegalLocationConstraintException",
)


class MissingFileError(ConfigError):
    """The file does not exist."""


class FileChangedError(TransientError):
    """The file was changed or deleted after it was listed."""


class ServerUnavailableError(TransientError):
    """The server cannot be reached, does not answer in time, or has an internal error."""


class ThrottledError(TransientError):
    """The server asks for a pause before the next request."""


@dataclass(frozen=True)
class RequestContext:
    """Where a request was sent, and whether it had credentials."""

    endpoint: str
    region: str
    with_credentials: bool


def response_error(response: httpx.Response, body: bytes, path: str, context: RequestContext) -> ConnectorError:
    """Return the error for a response; `body` is the beginning of the response's body."""
    found = CODE.search(body)
    code = found[1].decode() if found else ""
    if path.startswith("s3://") and (known := _s3_error(response, code, path, context)):
        return known
    return _http_error(response, code, display_path(path), context)


def _s3_error(response: httpx.Response, code: str, path: str, context: RequestContext) -> ConnectorError | None:
    region = response.headers.get("x-amz-bucket-region", "")
    if code in WRONG_REGION_CODES or (region and region != context.region):
        remedy = f"set it to {region}" if region else "set it to the bucket's region"
        return ConfigError(f"spec.config.region: {path}: the bucket is not in {context.region}; {remedy}")
    if code == "NoSuchBucket":
        return ConfigError(
            f"spec.config.streams.paths: {path}: {context.endpoint} has no such bucket; correct paths or endpoint"
        )
    if code == "RequestTimeTooSkewed":
        return ConfigError(
            f"{path}: the store's clock differs from this node's by too much ({code}); set the node's clock (NTP)"
        )
    if code == "InvalidObjectState":
        return SourceContractError(
            f"{path}: the object is in an archive ({code}); restore it, or leave it out of spec.config.streams.paths"
        )
    if code in CREDENTIAL_CODES or response.status_code in REFUSED_STATUSES:
        remedy = (
            f"correct accessKeyId and secretAccessKey in {KEYS_SOURCE}, and grant s3:GetObject on"
            " the objects and s3:ListBucket on the bucket"
            if context.with_credentials
            else "it is not public: put accessKeyId and secretAccessKey into a Secret, and name it in spec.secretRef"
        )
        if context.with_credentials:
            remedy = KEY_REMEDIES.get(code, remedy)
        message = f"{path}: the store refuses access{f' ({code})' if code else ''}; {remedy}"
        # Other buckets may allow access, and requests to them do not lock an account.
        return AuthenticationError(message, scope="stream")
    return None


def _http_error(response: httpx.Response, code: str, path: str, context: RequestContext) -> ConnectorError:
    status = response.status_code
    message = f"{path}: the server answered {status}{f' ({code})' if code else ''}"
    if status in REFUSED_STATUSES:
        remedy = (
            f"correct token, or username and password, in {KEYS_SOURCE}"
            if context.with_credentials
            else "it is not public: put token, or username and password, into a Secret, and name it in spec.secretRef"
        )
        return AuthenticationError(f"{message}; {remedy}")
    if status in MISSING_STATUSES:
        return MissingFileError(f"{message}: there is no such file; correct spec.config.streams.paths")
    if status in CHANGED_STATUSES:
        return file_changed(path)
    if status in BUSY_STATUSES or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in PERMANENT_STATUSES):
        delay = retry_after(response.headers.get("retry-after"))
        error_class = (
            ThrottledError
            if delay is not None or code in THROTTLING_CODES or status == TOO_MANY_REQUESTS
            else ServerUnavailableError
        )
        return error_class(message, retry_after=delay, scope="stream")
    if response.has_redirect_location:
        target = origin(str(response.url.join(response.headers["location"])))
        return ConfigError(
            f"{message} and redirects to {target}; set spec.config.followRedirects: true, or use that address"
        )
    return _other_status_error(status, message)


def _other_status_error(status: int, message: str) -> ConnectorError:
    """Return the error for a status that is neither success nor a known failure."""
    if status in (HTTPStatus.ACCEPTED, HTTPStatus.NOT_MODIFIED):
        return TransientError(f"{message} instead of the file; the next attempt requests it again", scope="stream")
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return ConfigError(f"{message}: the proxy between requires credentials; ask the platform's administrator")
    if status in PERMANENT_STATUSES:
        return SourceContractError(f"{message}: it does not support this request; correct the server in spec.config")
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return SourceContractError(f"{message}: the response has no content; correct spec.config.streams.paths")
    return SourceContractError(
        f"{message}: the server refuses this request; ask its administrator, or correct spec.config.streams.paths"
    )


def file_changed(path: str) -> FileChangedError:
    """Return the error for a file that is not the version that was listed."""
    return FileChangedError(
        f"{display_path(path)}: it was changed while it was being read; the next attempt reads the new version from its start",
        scope="stream",
    )


def retry_after(text: str | None) -> float | None:
    """Return the Retry-After header in seconds; its value is a number of seconds or a date."""
    if not text:
        return None
    if SECONDS.fullmatch(text.strip()):
        return min(float(text), LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return max(0.0, seconds)
