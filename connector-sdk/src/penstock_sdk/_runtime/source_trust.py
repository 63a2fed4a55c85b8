"""The CAs that a connection names for its source: the connector's clients trust them, without work by the author."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

import certifi

from penstock_sdk.protocol import SOURCE_CA_VARIABLE

BUNDLE_VARIABLES = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    "PGSSLROOTCERT",
)
"""What OpenSSL and httpx, requests, curl, boto3, Node.js and libpq read the file of trusted CAs from."""


def trust_source(environment: MutableMapping[str, str]) -> Path | None:
    """Write a file of the system's CAs and those of the source, and name it to all clients. None without such CAs."""
    own = environment.get(SOURCE_CA_VARIABLE, "")
    if not own:
        return None
    system = environment.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or certifi.where()
    with tempfile.NamedTemporaryFile("w", prefix="penstock-ca-", suffix=".pem", delete=False) as bundle:
        bundle.write(f"{Path(system).read_text().rstrip()}\n{own.strip()}\n")
    for name in BUNDLE_VARIABLES:
        environment[name] = bundle.name
    return Path(bundle.name)
