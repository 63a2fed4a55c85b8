"""A person enters a code on another device: the device authorization grant (RFC 8628)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from penstock_sdk.auth.oauth2 import Form, TokenEndpoint, token_document
from penstock_sdk.auth.provider import Provider, ProviderAnswer, error_code
from penstock_sdk.author.command_errors import printable
from penstock_sdk.errors import AuthenticationError, ConfigError, TransientError
from penstock_sdk.json_types import JsonObject

DEVICE_CODE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
DEFAULT_INTERVAL: Final = 5.0
"""Seconds between two requests, and by how much `slow_down` extends them (RFC 8628, 3.2 and 3.5)."""
LONGEST_INTERVAL: Final = 60.0
LONGEST_LIFETIME: Final = 3600.0
URL = re.compile(r"https?://[\x21-\x7e]{1,2000}")
EXPIRED = "the code has expired before anybody has authorized: run the command again"


@dataclass(frozen=True, slots=True)
class PollClock:
    """The time in seconds, and a wait."""

    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep


class DeviceAuthorization(msgspec.Struct, frozen=True):
    """The answer of the endpoint that issues device codes. Some providers write verification_url."""

    device_code: str
    user_code: str
    verification_uri: str = ""
    verification_url: str = ""
    verification_uri_complete: str = ""
    expires_in: float = 600.0
    interval: float = DEFAULT_INTERVAL

    @property
    def page(self) -> str:
        """The page at which a person enters the user code."""
        return self.verification_uri or self.verification_url

    @property
    def instructions(self) -> list[str]:
        """What a person has to do, one line each."""
        lines = [f"open {self.page} and enter the code {printable(self.user_code)}"]
        if URL.fullmatch(self.verification_uri_complete):
            lines.append(f"or open {self.verification_uri_complete}")
        return lines


def request_device_code(endpoint: TokenEndpoint, provider: Provider, parameters: Form) -> DeviceAuthorization:
    """Request a device code. `provider` is the endpoint that issues them."""
    answer = endpoint.post(lambda: parameters, provider)
    document = answer.document()
    if not answer.is_success or document is None or error_code(answer):
        raise provider.refused(answer, " or ".join(endpoint.client_credentials))
    try:
        found = msgspec.convert(document, DeviceAuthorization, strict=False)
    except msgspec.ValidationError:
        found = None
    if found is None or not found.device_code or not found.user_code or not URL.fullmatch(found.page):
        raise ConfigError(
            f"the answer of {provider.host} has no device_code, user_code and verification_uri: correct deviceAuthorizationUrl"
        )
    return found


def poll_for_token(
    endpoint: TokenEndpoint, device: DeviceAuthorization, parameters: Form, clock: PollClock
) -> JsonObject | ProviderAnswer:
    """Ask for the token until a person has authorized. Returns an answer that is neither a token nor known as the refused one.

    Raises AuthenticationError if the person refuses or the code expires.
    """
    end = clock.now() + min(max(device.expires_in, 0.0), LONGEST_LIFETIME)
    interval = min(device.interval if device.interval > 0 else DEFAULT_INTERVAL, LONGEST_INTERVAL)
    form = {**parameters, "grant_type": DEVICE_CODE_GRANT, "device_code": device.device_code}
    unavailable: TransientError | None = None
    while clock.now() + interval <= end:
        clock.wait(interval)
        try:
            answer = endpoint.post(lambda: form)
            unavailable = None
        except TransientError as error:  # RFC 8628, 3.5: ask less often, and go on
            unavailable, interval = error, min(interval * 2, LONGEST_INTERVAL)
            continue
        document = token_document(answer)
        if document is not None:
            return document
        match error_code(answer):
            case "authorization_pending":
                pass
            case "slow_down":
                interval = min(interval + DEFAULT_INTERVAL, LONGEST_INTERVAL)
            case "expired_token":
                break
            case "access_denied":
                raise AuthenticationError(
                    "the authorization was refused (access_denied): authorize with an account that may grant the scopes, and do"
                    " not cancel"
                )
            case _:
                return answer
    raise unavailable or AuthenticationError(EXPIRED)
