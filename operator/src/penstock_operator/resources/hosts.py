"""The host that a connection's runs talk to, as its manifest tells. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from penstock_sdk.json_types import JsonObject
from penstock_sdk.manifest import PLACEHOLDER, fill_in


def source_host(hosts: Sequence[str], config: JsonObject) -> str | None:
    """Return the first of a manifest's hosts, with `{{config.KEY}}` filled in; None when none can be told.

    A host that the config fills in goes before one that is the same for everybody: it is the source itself, and the
    other, say, where its tokens come from.
    """
    of_config = [host for host in hosts if PLACEHOLDER.search(host)]
    for host in (*of_config, *hosts):
        filled = fill_in(host, config)
        found = _bare_host(filled) if filled else None
        if found:
            return found
    return None


def _bare_host(url: str) -> str | None:
    bare = re.sub(r"^[a-z][a-z0-9+.-]*://", "", url.strip().lower()).split("/")[0].rsplit("@", 1)[-1]
    return _without_port(bare).rstrip(".")[:253] or None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() and ":" not in name else host
