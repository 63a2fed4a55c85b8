"""What an answer that is no good one means: the class that says what to do, and the words that say how."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError, SourceContractError, TransientError

from penstock_files_object.config import origin, shown

CODE = re.compile(rb"<Code>(\w+)</Code>")
SECONDS = re.compile(r"[0-9]{1,20}(\.[0-9]{1,9})?")
LONGEST_WISH = 1e10
TOO_MANY = 429
BUSY = (408, 425, TOO_MANY)
SLOW_DOWN = ("SlowDown", "RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequests")
REFUSED = (401, 403)
MISSING = (404, 410)
CHANGED = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
KEYS_REFUSED = (
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken"),
    *("TokenRefreshRequired", "AllAccessDisabled", "AccountProblem", "InvalidSecurity"),
)
KEYS_HOLDER = "the Secret that spec.secretRef names"
RENEW = f"the session is over: put a new accessKeyId, secretAccessKey and sessionToken into {KEYS_HOLDER}"
KEY_REMEDIES = {
    "InvalidAccessKeyId": f"the store does not know the key: correct accessKeyId and secretAccessKey in {KEYS_HOLDER}",
    "SignatureDoesNotMatch": f"the key's secret is another: correct accessKeyId and secretAccessKey in {KEYS_HOLDER}",
    "ExpiredToken": RENEW,
    "TokenRefreshRequired": RENEW,
    "InvalidToken": f"the sessionToken is not of these keys: correct it in {KEYS_HOLDER}, or leave it out",
    "AllAccessDisabled": "the bucket's owner has disabled it: ask the owner",
    "AccountProblem": "the account of the keys has a problem: ask whoever administers it",
}
NEVER_BY_ITSELF = (HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
WRONG_REGION = (
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "TemporaryRedirect",
    "IllegalLocationConstraintException",
)


class MissingError(ConfigError):
    """There is no such file."""


class ChangedError(TransientError):
    """The file was changed while it was being read."""


class NotNowError(TransientError):
    """The server cannot be reached, says nothing, or has an error of its own."""


class BusyError(TransientError):
    """The server asks to be left alone for a while."""


@dataclass(frozen=True)
class Asked:
    """Whom a request went to, and whether with credentials."""

    endpoint: str
    region: str
    with_credentials: bool


def refusal(response: httpx.Response, body: bytes, path: str, asked: Asked) -> ConnectorError:
    """Return the error; `body` is the beginning of the answer's."""
    found = CODE.search(body)
    code = found[1].decode() if found else ""
    if path.startswith("s3://") and (known := _of_s3(response, code, path, asked)):
        return known
    return _of_http(response, code, shown(path), asked)


def _of_s3(response: httpx.Response, code: str, path: str, asked: Asked) -> ConnectorError | None:
    region = response.headers.get("x-amz-bucket-region", "")
    if code in WRONG_REGION or (region and region != asked.region):
        there = f"set it to {region}" if region else "set it to the bucket's own"
        return ConfigError(f"spec.config.region: {path}: the bucket is not in {asked.region}; {there}")
    if code == "NoSuchBucket":
        return ConfigError(
            f"spec.config.streams.paths: {path}: {asked.endpoint} has no such bucket; correct paths or endpoint"
        )
    if code == "RequestTimeTooSkewed":
        return ConfigError(
            f"{path}: the store's clock differs from this node's by too much ({code}); set the node's clock (NTP)"
        )
    if code == "InvalidObjectState":
        return SourceContractError(
            f"{path}: the object lies in an archive ({code}); restore it, or leave it out of spec.config.streams.paths"
        )
    if code in KEYS_REFUSED or response.status_code in REFUSED:
        remedy = (
            "correct accessKeyId and secretAccessKey in the Secret that spec.secretRef names, and grant s3:GetObject on"
            " the objects and s3:ListBucket on the bucket"
            if asked.with_credentials
            else "it is not public: put accessKeyId and secretAccessKey into a Secret that spec.secretRef names"
        )
        if asked.with_credentials:
            remedy = KEY_REMEDIES.get(code, remedy)
        said = f"{path}: the store refuses access{f' ({code})' if code else ''}; {remedy}"
        return AuthenticationError(said, scope="stream")  # of one bucket: no account is locked by asking for another
    return None


def _of_http(response: httpx.Response, code: str, path: str, asked: Asked) -> ConnectorError:
    status = response.status_code
    said = f"{path}: the server answered {status}{f' ({code})' if code else ''}"
    if status in REFUSED:
        remedy = "correct" if asked.with_credentials else "it is not public: put"
        where = "in the Secret" if asked.with_credentials else "into a Secret"
        return AuthenticationError(
            f"{said}; {remedy} token, or username and password, {where} that spec.secretRef names"
        )
    if status in MISSING:
        return MissingError(f"{said}: there is no such file; correct spec.config.streams.paths")
    if status in CHANGED:
        return changed(path)
    if status in BUSY or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in NEVER_BY_ITSELF):
        wish = retry_after(response.headers.get("retry-after"))
        kind = BusyError if wish is not None or code in SLOW_DOWN or status == TOO_MANY else NotNowError
        return kind(said, retry_after=wish, scope="stream")
    if response.has_redirect_location:
        target = origin(str(response.url.join(response.headers["location"])))
        return ConfigError(f"{said} and leads to {target}; set spec.config.followRedirects, or use that address")
    return _of_no_use(status, said)


def _of_no_use(status: int, said: str) -> ConnectorError:
    """Return what to say of an answer that is neither the file nor an error that says why."""
    if status in (HTTPStatus.ACCEPTED, HTTPStatus.NOT_MODIFIED):
        return TransientError(f"{said} instead of the file; it is asked for again later", scope="stream")
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return ConfigError(f"{said}: the proxy on the way wants credentials; ask whoever runs the platform")
    if status in NEVER_BY_ITSELF:
        return SourceContractError(f"{said}: it does not know such a request; check that it is the right server")
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return SourceContractError(f"{said}: no content where a file was asked for; correct spec.config.streams.paths")
    return SourceContractError(
        f"{said}: it takes no request such as this one; ask whoever runs it, or correct spec.config.streams.paths"
    )


def changed(path: str) -> ChangedError:
    """Return what to say of a file that is not the one that was listed any more."""
    return ChangedError(
        f"{shown(path)}: it was changed while it was being read; the next attempt reads the new version from its start",
        scope="stream",
    )


def retry_after(text: str | None) -> float | None:
    """Return the server's wish in seconds: it is a number, or a moment."""
    if not text:
        return None
    if SECONDS.fullmatch(text.strip()):
        return min(float(text), LONGEST_WISH)
    try:
        moment = parsedate_to_datetime(text)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return max(0.0, seconds)
