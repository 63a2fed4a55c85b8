"""One Keycloak for the whole tier. Without Java the tier is skipped with a reason; in CI it must run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.identity.keycloak import Keycloak, MissingKeycloakError, distribution, running
from tests.unit.sdk.auth.logins import certificate, pem_of, rsa_key


@pytest.fixture(scope="session")
def server_certificate() -> str:
    """The certificate of Keycloak and of the client, signed by itself."""
    return certificate("127.0.0.1")


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory, server_certificate: str) -> Iterator[Keycloak]:
    """A Keycloak that runs."""
    try:
        distribution()
    except MissingKeycloakError as missing:
        if os.environ.get("CI"):
            pytest.fail(f"the tier `identity` must run in CI: {missing}")
        pytest.skip(f"THE LOGINS WERE NOT TESTED AGAINST A REAL IDENTITY PROVIDER: {missing}")
    with running(tmp_path_factory.mktemp("keycloak"), server_certificate, pem_of(rsa_key())) as found:
        yield found
