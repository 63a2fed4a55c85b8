"""The network destinations of one connection: `network.egress` of the manifest, with the values of the config. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from penstock_sdk.json_types import JsonObject, properties_of
from penstock_sdk.manifest.model import Egress, Manifest

__all__ = [
    "DEFAULT_EGRESS_PORT",
    "PLACEHOLDER",
    "EgressRule",
    "config_values",
    "egress_rules",
    "fill_in",
    "fill_in_url",
    "host_and_port",
    "is_address",
    "normal_host",
]

DEFAULT_EGRESS_PORT = 443
"""The port of a destination that declares none and whose host is no URL."""
SCHEME_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
PLACEHOLDER = re.compile(r"\{\{\s*config\.([A-Za-z0-9_.-]+)\s*\}\}")
"""A value of the config in a host or a port: `{{config.KEY}}`, where a KEY with dots leads into nested objects."""
HOST_VALUE = re.compile(r"[A-Za-z0-9._-]+")
HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
NOT_IN_BASE = re.compile(r"[\s?#@\\]")
SCHEME = re.compile(r"https?://", re.IGNORECASE)
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

    They are those of `network.egress`, and the hosts of the URLs with which the methods of `authentication` log in. A host
    that `network.egress` declares too has what is declared there, such as `private`. Defaults of the configSchema count. A
    wildcard counts only where the manifest itself writes it: with `host: "*.com"` in the config, a tenant could otherwise
    reach any host.
    """
    values = config_values(manifest, config)
    rules = [rule for rule in (_rule(destination, values) for destination in manifest.network.egress) if rule]
    places = {(rule.host, rule.port) for rule in rules}
    logins = [rule for rule in _login_rules(manifest, values) if (rule.host, rule.port) not in places]
    return list(dict.fromkeys([*rules, *logins]))


def config_values(manifest: Manifest, config: JsonObject) -> JsonObject:
    """Return the config with the defaults of the configSchema."""
    declared = properties_of(manifest.config_schema)
    defaults = {name: schema.get("default") for name, schema in declared.items() if "default" in schema}
    return {**defaults, **config}


def _login_rules(manifest: Manifest, values: JsonObject) -> list[EgressRule]:
    methods = manifest.authentication.methods
    urls = (fill_in_url(url, values) for method in methods for url in method.pod_urls())
    places = (_host_and_port(url) for url in urls if url is not None)
    return [EgressRule(place[0], place[1] or DEFAULT_EGRESS_PORT) for place in places if place is not None]


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


def host_and_port(text: str) -> tuple[str, int] | None:
    """Return host and port of a URL, or of a host with or without a port; None if it is neither."""
    place = _host_and_port(text)
    return None if place is None else (place[0], place[1] or DEFAULT_EGRESS_PORT)


def _rule(destination: Egress, values: JsonObject) -> EgressRule | None:
    declared = destination.host.strip()
    wildcard = declared.startswith(WILDCARD)
    host = _fill_in_destination(declared.removeprefix(WILDCARD), values)
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


def fill_in_url(template: str, values: JsonObject) -> str | None:
    """Return a URL with `{{config.KEY}}` filled in; None if a value is missing or does not fit its place.

    A value can be the base of the URL: `{{config.url}}/oauth/token`; without a scheme, it gets https. Inside the host, a
    value is a part of a name and nothing else, so that a config cannot lead to another host. After the host, values are
    percent-encoded.
    """
    base = PLACEHOLDER.match(template)
    if base:
        begin = fill_in(base[0], values)
        rest = template[base.end() :]
        if begin is None or (rest and not rest.startswith(("/", "?"))):
            return None
        host = (begin if "://" in begin else f"https://{begin}").rstrip("/")
        if not SCHEME.match(host) or NOT_IN_BASE.search(host):
            return None
    else:
        scheme = SCHEME.match(template)
        if scheme is None:
            return None
        place = re.split("[/?#]", template[scheme.end() :], maxsplit=1)[0]
        rest = template[scheme.end() + len(place) :]
        name = _fill_in_host(place, values)
        if name is None:
            return None
        host = f"{scheme[0]}{name}"
    path = _fill_in_path(rest, values)
    if path is None or _host_and_port(host) is None:
        return None
    return f"{host}{path}"


def _fill_in_destination(declared: str, values: JsonObject) -> str | None:
    """Return a destination filled in. Only a value that is the whole text may be a URL, or have a port."""
    if PLACEHOLDER.fullmatch(declared):
        return fill_in(declared, values)
    return fill_in_url(declared, values) if SCHEME.match(declared) else _fill_in_host(declared, values)


def _fill_in_host(place: str, values: JsonObject) -> str | None:
    whole = PLACEHOLDER.fullmatch(place) is not None
    for match in PLACEHOLDER.finditer(place):
        value = fill_in(match[0], values)
        if value is None or not (HOST_AND_PORT if whole else HOST_VALUE).fullmatch(value):
            return None
    return fill_in(place, values)


def _fill_in_path(rest: str, values: JsonObject) -> str | None:
    filled = ""
    at = 0
    for match in PLACEHOLDER.finditer(rest):
        value = fill_in(match[0], values)
        if value is None or value in (".", ".."):
            return None
        filled += rest[at : match.start()] + quote(value, safe="")
        at = match.end()
    return filled + rest[at:]


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
