"""Keycloak on loopback, with a realm for the logins that connectors use: from Maven Central, started once for the tier."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

VERSION = "26.4.0"
ARTIFACT = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
START_SECONDS = 300
FAST_START = "-XX:TieredStopAtLevel=1"
"""Compile less: the server lives for a minute."""
REALM = "connectors"
USER, PASSWORD = "ada", "pa:ss wörd"
USER_WITHOUT_OFFLINE_ACCESS = "bob"
SECRET = "s3cret/+&="
SERVICE_PROVIDER = "https://penstock.example/saml"
CONSUMER = "https://penstock.example/acs"


class MissingKeycloakError(Exception):
    """This machine cannot run Keycloak; the message says what is missing."""


@dataclass(frozen=True)
class Keycloak:
    """A Keycloak that runs. `https` accepts client certificates."""

    http: str
    https: str

    @property
    def realm(self) -> str:
        """The URL of the realm."""
        return f"{self.http}/realms/{REALM}"

    @property
    def token_url(self) -> str:
        """The token endpoint."""
        return f"{self.realm}/protocol/openid-connect/token"

    @property
    def mtls_token_url(self) -> str:
        """The token endpoint behind TLS."""
        return f"{self.https}/realms/{REALM}/protocol/openid-connect/token"

    @property
    def soap_url(self) -> str:
        """The SOAP endpoint for ECP."""
        return f"{self.realm}/protocol/saml"


def distribution() -> Path:
    """Return the distribution, from the local repository of Maven or from Maven Central. Raises MissingKeycloakError."""
    if not shutil.which("java"):
        raise MissingKeycloakError("java is not installed; Keycloak needs Java 17 or later")
    repository = Path(os.environ.get("MAVEN_REPOSITORY", Path.home() / ".m2" / "repository"))
    found = repository / "org/keycloak/keycloak-quarkus-dist" / VERSION / f"keycloak-quarkus-dist-{VERSION}.zip"
    if not found.exists():
        if not shutil.which("mvn"):
            raise MissingKeycloakError(f"{found.name} is not in {repository}, and mvn is not installed to get it")
        command = ["mvn", "-q", "-B", "dependency:get", f"-Dartifact={ARTIFACT}", "-Dtransitive=false"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if not found.exists():
            raise MissingKeycloakError(f"mvn did not get {ARTIFACT}: {done.stdout[-500:]}")
    return found


@contextmanager
def running(folder: Path, certificate: str, key: str) -> Iterator[Keycloak]:
    """Run Keycloak below a folder until the end. The certificate is its own, and the one that it trusts of clients."""
    with zipfile.ZipFile(distribution()) as archive:
        archive.extractall(folder)
    home = folder / f"keycloak-{VERSION}"
    (home / "data" / "import").mkdir(parents=True)
    (home / "data" / "import" / "realm.json").write_text(json.dumps(realm(certificate)))
    (folder / "chain.pem").write_text(certificate)
    (folder / "key.pem").write_text(key)
    http, https, management = _free_ports(3)
    options = {
        "http-host": "127.0.0.1",
        "http-port": http,
        "https-port": https,
        "http-management-port": management,
        "https-certificate-file": folder / "chain.pem",
        "https-certificate-key-file": folder / "key.pem",
        "https-client-auth": "request",
        "truststore-paths": folder / "chain.pem",
        "cache": "local",
        "db": "dev-mem",
    }
    command = ["bash", str(home / "bin" / "kc.sh"), "start-dev", "--import-realm"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (folder / "keycloak.log").open("w") as log:
        environment = {**os.environ, "JAVA_OPTS_APPEND": FAST_START}
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        try:
            found = Keycloak(f"http://127.0.0.1:{http}", f"https://127.0.0.1:{https}")
            _wait(found, process, folder / "keycloak.log")
            yield found
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it keeps nothing
            process.wait()


def _wait(keycloak: Keycloak, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{keycloak.realm}/protocol/saml/descriptor", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"Keycloak did not start:\n{log.read_text()[-3000:]}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(opened.getsockname()[1]) for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def realm(certificate: str) -> dict[str, Any]:
    """Return the realm: refresh tokens are good for one use, and a second use revokes the session."""
    der = "".join(line for line in certificate.splitlines() if not line.startswith("-----"))
    return {
        "realm": REALM,
        "enabled": True,
        "sslRequired": "none",
        "revokeRefreshToken": True,
        "refreshTokenMaxReuse": 0,
        "users": [user(USER, realmRoles=["offline_access"]), user(USER_WITHOUT_OFFLINE_ACCESS)],
        "clients": [
            client("basic", clientAuthenticatorType="client-secret", secret=SECRET, serviceAccountsEnabled=True),
            client("disabled", clientAuthenticatorType="client-secret", secret=SECRET),
            client(
                "signed",
                clientAuthenticatorType="client-jwt",
                serviceAccountsEnabled=True,
                attributes={"jwt.credential.certificate": der, "token.endpoint.auth.signing.alg": "RS256"},
            ),
            client(
                "mutual",
                clientAuthenticatorType="client-x509",
                serviceAccountsEnabled=True,
                attributes={"x509.subjectdn": "CN=127.0.0.1"},
            ),
            client("person", publicClient=True, directAccessGrantsEnabled=True, **PERSONAL),
            client("person-with-secret", clientAuthenticatorType="client-secret", secret=SECRET, **PERSONAL),
            client("hasty", clientAuthenticatorType="client-secret", secret=SECRET, attributes={"oauth2.device.authorization.grant.enabled": "true", "oauth2.device.code.lifespan": "6"}),
            {
                "clientId": SERVICE_PROVIDER,
                "protocol": "saml",
                "enabled": True,
                "redirectUris": [CONSUMER],
                "attributes": {
                    "saml.allow.ecp.flow": "true",
                    "saml.client.signature": "false",
                    "saml.assertion.signature": "true",
                    "saml.server.signature": "true",
                    "saml_assertion_consumer_url_post": CONSUMER,
                },
            },
        ],
    }  # fmt: skip


PERSONAL: dict[str, Any] = {
    "standardFlowEnabled": True,
    "redirectUris": ["http://127.0.0.1/*"],
    "attributes": {"oauth2.device.authorization.grant.enabled": "true", "pkce.code.challenge.method": "S256"},
}
"""A client whose user authorizes in a browser, with PKCE, or by a device code."""


def user(name: str, **fields: Any) -> dict[str, Any]:
    """Return a user, who may have offline tokens with the role offline_access only."""
    return {
        "username": name,
        "enabled": True,
        "email": f"{name}@example.org",
        "firstName": name.title(),
        "lastName": "L",
        "emailVerified": True,
        "credentials": [{"type": "password", "value": PASSWORD, "temporary": False}],
        **fields,
    }


def client(name: str, **fields: Any) -> dict[str, Any]:
    """Return a client of OpenID Connect, without any flow that is not named."""
    flows = dict.fromkeys(("standardFlowEnabled", "directAccessGrantsEnabled", "serviceAccountsEnabled"), False)
    return {"clientId": name, "protocol": "openid-connect", "enabled": True, "publicClient": False, **flows, **fields}
