"""The network destinations of one connection: `network.egress` of the manifest, with the values of the config. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from penstock_sdk.json_types import JsonObject, properties_of
from penstock_sdk.manifest.model import Egress, Manifest

__all__ = ["DEFAULT_EGRESS_PORT", "PLACEHOLDER", "EgressRule", "egress_rules", "fill_in", "is_address", "normal_host"]

DEFAULT_EGRESS_PORT = 443
"""The port of a destination that declares none and whose host is no URL."""
SCHEME_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
PLACEHOLDER = re.compile(r"\{\{\s*config\.([A-Za-z0-9_.-]+)\s*\}\}")
"""A value of the config in a host or a port: `{{config.KEY}}`, where a KEY with dots leads into nested objects."""
LABELS = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
WILDCARD = "*."
LONGEST_HOST, LARGEST_PORT = 253, 65_535


@dataclass(frozen=True, slots=True)
class EgressRule:
    """One destination. `*.example.com` stands for every name below example.com; `private`: it may be a private address."""

    host: str
    port: int
    private: bool = False

    def allows(self, host: str, port: int) -> bool:
        """Return True if the rule covers a host, as `normal_host` writes it, and a port."""
        if port != self.port:
            return False
        if self.host.startswith(WILDCARD):
            return host.endswith(self.host[1:]) and not is_address(host)
        return host == self.host


def egress_rules(manifest: Manifest, config: JsonObject) -> list[EgressRule]:
    """Return the destinations of a connection with this config; one that needs a value that the config lacks is left out.

    Defaults of the configSchema count. A wildcard counts only where the manifest itself writes it: with `host: "*.com"`
    in the config, a tenant could otherwise reach any host.
    """
    declared = properties_of(manifest.config_schema)
    defaults = {name: schema.get("default") for name, schema in declared.items() if "default" in schema}
    values = {**defaults, **config}
    rules = (_rule(destination, values) for destination in manifest.network.egress)
    return list(dict.fromkeys(rule for rule in rules if rule is not None))


def normal_host(text: str) -> str | None:
    """Return a host name in lower case and ASCII without its last dot, or an address in its shortest form; None if it is neither."""
    bare = text.strip().removeprefix("[").removesuffix("]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    try:
        name = bare if bare.isascii() else bare.encode("idna").decode()
    except UnicodeError:
        return None
    return name if len(name) <= LONGEST_HOST and LABELS.fullmatch(name) else None


def _rule(destination: Egress, values: JsonObject) -> EgressRule | None:
    declared = destination.host.strip()
    wildcard = declared.startswith(WILDCARD)
    host = fill_in(declared.removeprefix(WILDCARD), values)
    port = fill_in(destination.port, values) if destination.port else None
    if host is None or (destination.port and port is None):
        return None
    place = _host_and_port(host)
    if place is None:
        return None
    name, own_port = place
    number = _port(port) if port is not None else (own_port or DEFAULT_EGRESS_PORT)
    if number is None or (wildcard and is_address(name)):
        return None
    return EgressRule(f"{WILDCARD}{name}" if wildcard else name, number, bool(destination.private))


def fill_in(template: str, values: JsonObject) -> str | None:
    """Return a text with `{{config.KEY}}` filled in; None if a value is missing, empty, or neither text nor a number."""
    missing = False

    def value(match: re.Match[str]) -> str:
        nonlocal missing
        found: Any = values
        for key in match[1].split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        missing = missing or isinstance(found, bool) or not isinstance(found, str | int) or found == ""
        return str(found)

    filled = PLACEHOLDER.sub(value, template)
    return None if missing else filled


def _host_and_port(host: str) -> tuple[str, int | None] | None:
    """Return host and port of a URL, of host:port or of a host; None for anything else."""
    text = host.strip()
    if normal_host(text) is not None:
        return str(normal_host(text)), None
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        name, port = normal_host(parts.hostname or ""), parts.port
    except ValueError:
        return None
    return None if name is None else (name, port or SCHEME_PORTS.get(parts.scheme.lower()))


def _port(text: str) -> int | None:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(LARGEST_PORT)) else 0
    return number if 1 <= number <= LARGEST_PORT else None


def is_address(host: str) -> bool:
    """Return True for an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
