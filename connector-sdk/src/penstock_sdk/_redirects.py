"""Redirects: where credentials may go, and the request that follows a redirect.

`penstock_sdk.http.Client` and `penstock_sdk.auth.Auth.client` follow redirects by this module.
"""

from __future__ import annotations

import httpx


def origin_of(url: httpx.URL) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL. Credentials for one URL may be sent to the URLs of the same origin."""
    return url.scheme, url.host.lower(), url.port or (443 if url.scheme == "https" else 80)
