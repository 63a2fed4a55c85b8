"""The CAs that this process trusts for the run API, the egress gateway and the bucket. The connector's clients do not use them."""

from __future__ import annotations

import ssl

import httpx

from penstock_sdk._causes import chain_of_causes
from penstock_sdk.errors import DefectError
from penstock_sdk.protocol import CA_CERTIFICATES_VARIABLE


def platform_trust(ca_certificates: str) -> ssl.SSLContext:
    """Return a context that trusts the system's CAs and those of a PEM text. Raises DefectError if it holds none."""
    context = httpx.create_ssl_context(trust_env=False)  # not the CAs that a connection names for its source
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_certificates:
        try:
            context.load_verify_locations(cadata=ca_certificates)
        except (ssl.SSLError, ValueError):
            message = f"{CA_CERTIFICATES_VARIABLE} holds no certificate as PEM; Penstock's launcher sets it"
            raise DefectError(message) from None
    return context


def refused_certificate(server: str, error: BaseException) -> str:
    """Return in one sentence why a server's certificate is not accepted; empty if an error has another cause."""
    failed = (cause for cause in chain_of_causes(error) if isinstance(cause, ssl.SSLCertVerificationError))
    found = next(failed, None)
    if found is None:
        return ""
    why = found.verify_message.strip().rstrip(".")
    return (
        f"the certificate of {server} is not accepted: {why}; the platform's owner can see `tls` of the chart's values,"
        " or `s3.caSecret` for the bucket"
    )
