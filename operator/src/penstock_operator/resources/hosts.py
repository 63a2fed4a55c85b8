"""The host that a connection's runs talk to, as its manifest tells. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

FILLED_IN = re.compile(r"\{\{\s*config\.([A-Za-z0-9_.-]+)\s*\}\}")


def source_host(hosts: Sequence[str], config: dict[str, Any]) -> str | None:
    """Return the first of a manifest's hosts, with `{{config.KEY}}` filled in; None when none can be told.

    A host that the config fills in goes before one that is the same for everybody: it is the source itself, and the
    other, say, where its tokens come from.
    """
    of_config = [host for host in hosts if FILLED_IN.search(host)]
    for host in (*of_config, *hosts):
        filled = _filled(host, config)
        if filled:
            return filled
    return None


def _filled(host: str, config: dict[str, Any]) -> str | None:
    missing = False

    def value(match: re.Match[str]) -> str:
        nonlocal missing
        found: Any = config
        for key in match[1].split("."):
            found = found.get(key) if isinstance(found, dict) else None
        missing = missing or not isinstance(found, str | int) or found == ""
        return str(found)

    filled = FILLED_IN.sub(value, host)
    if missing:
        return None
    bare = re.sub(r"^[a-z][a-z0-9+.-]*://", "", filled.strip().lower()).split("/")[0].rsplit("@", 1)[-1]
    return _without_port(bare).rstrip(".")[:253] or None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() and ":" not in name else host
