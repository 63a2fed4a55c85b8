"""Whether what runs is what was to run: the image's protocol and artifact, and the version of state that it reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from penstock_sdk.protocol import PROTOCOL_VERSION, StartRequest

from penstock_operator.errors import Invalid
from penstock_operator.runs.attempt_store import CarriedAttempt
from penstock_operator.runs.state_store import State

OLDEST_PROTOCOL = 2
"""The oldest version of the messages that the server answers. In version 1, a grant named no size and no checksum, and `start`
had no key."""


def check_protocol(request: StartRequest) -> str:
    """Return the request's key. Raises Invalid when the image's SDK is older than the oldest that the server answers."""
    if request.protocol < OLDEST_PROTOCOL:
        message = (
            f"the image's SDK {request.sdk_version} speaks version {request.protocol} of the run protocol, this server versions"
            f" {OLDEST_PROTOCOL} to {PROTOCOL_VERSION}: build the image with a newer penstock-sdk"
        )
        raise Invalid(message)
    if request.key is None:
        message = f"the image's SDK {request.sdk_version} sends no key with start: build the image with penstock-sdk"
        raise Invalid(message)
    return request.key


def check_artifact(request: StartRequest, launch: CarriedAttempt) -> None:
    """Raise Invalid when the pod runs another artifact than the definition declares."""
    manifest, runs_as = launch.manifest, request.connector
    declared = (manifest.name, manifest.method, manifest.version)
    if declared != (runs_as.name, runs_as.method, runs_as.version):
        message = (
            f"the image holds {runs_as.name}-{runs_as.method}-{runs_as.version},"
            f" the definition is {launch.definition}: publish the definition with its own image"
        )
        raise Invalid(message)


def check_state_versions(state_version: int, states: Mapping[str, State]) -> None:
    """Raise Invalid when a stream's cursor was written by a state version that this artifact does not read."""
    other = sorted(
        name for name, state in states.items() if state.state_version != state_version and state.cursor is not None
    )
    if other:
        message = (
            f"the state of {', '.join(other)} was written by another state version than {state_version}:"
            " pin the earlier connector version, or reset the state"
        )
        raise Invalid(message)
