"""A refresh token that several pods share is used once, and its successor is never lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from penstock_sdk import AuthenticationError, TransientError
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.client import RetryPolicy, RunClient
from penstock_sdk._runtime.credential_store import CredentialStore
from penstock_sdk._runtime.leased_credential import LeaseClock, LeasedCredential
from penstock_sdk._runtime.masking import Mask
from penstock_sdk.auth import Auth
from penstock_sdk.testing.run_api import RUN, RunApi

from tests.fakes.provider import Call, FakeProvider
from tests.unit.sdk.auth.logins import login
from tests.unit.sdk.conftest import IDENTITY

SECRET = {"client_id": "the-client", "client_secret": "the-secret", "refresh_token": "refresh-0"}


@pytest.fixture
def api() -> Iterator[RunApi]:
    with RunApi(IDENTITY, {}, declared=SECRET) as found:
        yield found


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as found:
        yield found


def start(api: RunApi) -> RunClient:
    """Return the client of the next attempt, which has started."""
    number = api.next_attempt()
    client = RunClient(api.url, api.token, RetryPolicy(seconds=5))
    client.start(wire.StartRequest(run=RUN, attempt=number, connector=IDENTITY, sdk_version="1", key="k" * 40))
    return client


@dataclass
class ManualClock:
    """A clock that a test moves; a sleep ends at once."""

    time: float = 0.0
    on_sleep: Callable[[], None] = lambda: None

    def now(self) -> float:
        """Return the time."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.time += seconds
        self.on_sleep()


def connected(
    provider: FakeProvider, client: RunClient, secret: dict[str, str] = SECRET, clock: ManualClock | None = None
) -> Auth:
    """Return the login of a pod with this Secret."""
    store = CredentialStore(secret, frozenset(), Mask([]))
    used = clock or ManualClock()
    described = {"flow": "refreshToken", "tokenUrl": provider.token_url}
    return login(
        "oauth2",
        secret,
        described,
        share=lambda name: LeasedCredential(client, store, name, LeaseClock(used.now, used.sleep)),
    )


def get(provider: FakeProvider, auth: Auth) -> int:
    """Send a request, and return its status."""
    with auth.client(base_url=provider.url) as http:
        return http.get("/orders").status_code


def test_pods_that_share_a_credential_refresh_it_once(provider: FakeProvider, api: RunApi) -> None:
    client = start(api)
    pods = [connected(provider, client) for _ in range(10)]
    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(lambda auth: get(provider, auth), pods)) == {200}
    assert len(provider.token_calls) == 1
    assert provider.reused == []


def test_a_provider_that_detects_reuse_never_sees_any(provider: FakeProvider, api: RunApi) -> None:
    provider.lifetime = 1e-9
    client = start(api)
    pods = [connected(provider, client) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda auth: get(provider, auth), pods * 5)) == {200}
    assert provider.reused == []
    assert api.kept["refresh_token"].value == provider.refresh_token


def test_a_pod_that_is_killed_between_refresh_and_use_leaves_the_token_to_the_next(
    provider: FakeProvider, api: RunApi
) -> None:
    auth = connected(provider, start(api))
    provider.source = lambda _call: pytest.fail("the pod is gone")
    auth.token()  # type: ignore[attr-defined] - obtained and stored, and then never used
    provider.source = provider.guarded
    assert get(provider, connected(provider, start(api))) == 200
    assert len(provider.token_calls) == 1


def test_a_pod_that_is_killed_before_it_stores_leaves_a_lease_that_ends(provider: FakeProvider, api: RunApi) -> None:
    client = start(api)
    client.lease_credential(lease_request())
    provider.used.add(provider.refresh_token)  # the pod has used the token, and is killed
    following = start(api)
    clock = ManualClock(on_sleep=lambda: expire(api))
    with pytest.raises(AuthenticationError) as raised:
        get(provider, connected(provider, following, clock=clock))
    assert "An earlier run was interrupted while it used refresh_token" in raised.value.message
    assert "authorize again" in raised.value.message


def lease_request() -> wire.CredentialLeaseRequest:
    """Return the request of another pod."""
    store = CredentialStore(SECRET, frozenset(), Mask([]))
    seed = store.seed("refresh_token")
    return wire.CredentialLeaseRequest(name="refresh_token", seed=seed, known=seed, lease="o" * 32)


def expire(api: RunApi) -> None:
    """End every lease by its time."""
    for lease in api.leases.values():
        lease.is_open = False


def test_a_lease_that_nobody_gives_back_is_a_transient_error(provider: FakeProvider, api: RunApi) -> None:
    client = start(api)
    client.lease_credential(lease_request())
    with pytest.raises(TransientError, match="another run has used refresh_token for 180 s"):
        get(provider, connected(provider, client))
    assert provider.token_calls == []


def test_a_pod_that_was_paused_after_the_lease_asks_again(provider: FakeProvider, api: RunApi) -> None:
    client, clock = start(api), ManualClock()
    paused = threading.Event()

    def pause(event: str, _number: int) -> None:
        if event == "lease" and not paused.is_set():
            paused.set()
            clock.time += 500
            provider.valid.add("access-token-of-another")
            api.moment = lambda _event, _number: None
            token = wire.IssuedToken(value="access-token-of-another", lifetime=300)
            api.kept["refresh_token"] = wire.RotatedCredential(value="refresh-9", seed=lease_request().seed)
            api.tokens["refresh_token"] = (token, time.monotonic())

    api.moment = pause
    assert get(provider, connected(provider, client, clock=clock)) == 200
    assert provider.token_calls == []


def test_a_lost_answer_is_asked_for_once_more_and_marked(provider: FakeProvider, api: RunApi) -> None:
    def lose(call: Call) -> None:
        provider.grant(call)

    provider.token_replies += [lose, lose]
    client = start(api)
    with pytest.raises(TransientError, match="does not answer the login completely"):
        get(provider, connected(provider, client))
    with pytest.raises(AuthenticationError, match="An earlier run was interrupted"):
        get(provider, connected(provider, client))


def test_a_lost_answer_costs_nothing_with_a_provider_that_allows_for_it(provider: FakeProvider, api: RunApi) -> None:
    provider.leeway = True
    provider.token_replies.append(lambda call: provider.grant(call) and None)
    assert get(provider, connected(provider, start(api))) == 200
    assert api.kept["refresh_token"].value == provider.refresh_token


def test_a_provider_that_is_down_costs_no_lease(provider: FakeProvider, api: RunApi) -> None:
    client = start(api)
    with FakeProvider() as stopped:
        pass
    with pytest.raises(TransientError):
        get(provider, connected(stopped, client))
    assert api.leases == {}
    assert get(provider, connected(provider, client)) == 200


def test_a_secret_that_changes_meanwhile_counts(provider: FakeProvider, api: RunApi) -> None:
    client = start(api)
    assert get(provider, connected(provider, client)) == 200
    provider.refresh_token = "authorized-again"
    changed = {**SECRET, "refresh_token": "authorized-again"}
    assert get(provider, connected(provider, client, changed)) == 200
    assert provider.token_calls[-1].form["refresh_token"] == "authorized-again"
    assert provider.reused == []


def test_a_store_that_another_pod_was_faster_with_uses_what_that_pod_got(provider: FakeProvider, api: RunApi) -> None:
    client = start(api)
    other = threading.Event()

    def overtaken(call: Call) -> None:
        reply = provider.grant(call)
        other.set()
        provider.valid.add("access-token-of-another")
        api.kept["refresh_token"] = wire.RotatedCredential(value="refresh-8", seed=lease_request().seed)
        token = wire.IssuedToken(value="access-token-of-another", lifetime=300)
        api.tokens["refresh_token"] = (token, time.monotonic())
        return reply  # type: ignore[return-value]

    provider.token_replies.append(overtaken)
    assert get(provider, connected(provider, client)) == 200
    assert provider.source_calls[-1].headers["authorization"] == "Bearer access-token-of-another"


def test_a_platform_without_leases_stores_the_new_token(provider: FakeProvider, api: RunApi) -> None:
    client = start(api)
    answer = api.answer

    def older(path: str, body: bytes, token: str | None) -> tuple[int, str]:
        return (404, '{"detail": "Not Found"}') if path == "credentials/lease" else answer(path, body, token)

    api.answer = older  # type: ignore[method-assign]
    assert get(provider, connected(provider, client)) == 200
    assert api.kept["refresh_token"].value == provider.refresh_token


def test_a_token_that_the_source_refuses_is_refreshed_once_for_all(provider: FakeProvider, api: RunApi) -> None:
    client = start(api)
    pods = [connected(provider, client) for _ in range(3)]
    assert [get(provider, auth) for auth in pods] == [200] * 3
    provider.valid.clear()
    assert [get(provider, auth) for auth in pods] == [200] * 3
    assert len(provider.token_calls) == 2
    assert provider.reused == []
