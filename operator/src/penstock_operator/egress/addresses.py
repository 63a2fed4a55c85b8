"""Which addresses a run may reach. Pure: names are resolved before, once, and the gateway connects to what was judged."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NEVER = {
    "unspecified": ("0.0.0.0/8", "::/128"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "reserved": ("240.0.0.0/4", "255.255.255.255/32"),
}
"""Addresses that no source has."""
SPECIAL = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/10", "fec0::/10"),
    "metadata": ("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::/32", "fd20:ce::254/128"),
}
"""Addresses of a machine and of its cloud. A wide range such as 10.0.0.0/8 or 0.0.0.0/0 never includes them: the platform
allows one only with a range that lies wholly inside."""
EMBEDDING = {
    "IPv4-compatible": "::/96",
    "SIIT": "::ffff:0:0:0/96",
    "NAT64": "64:ff9b::/96",
    "local NAT64": "64:ff9b:1::/48",
    "Teredo": "2001::/32",
    "6to4": "2002::/16",
}
"""IPv6 forms of an IPv4 address. A source is named by its own address."""


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_NEVER = {kind: _networks(texts) for kind, texts in NEVER.items()}
_SPECIAL = {kind: _networks(texts) for kind, texts in SPECIAL.items()}
_EMBEDDING = {kind: _networks([text]) for kind, text in EMBEDDING.items()}
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The private ranges that the platform allows (`egress.privateRanges`); none by default."""

    private_ranges: tuple[Network, ...] = ()

    def refusal(self, address: Address, *, private: bool) -> str | None:
        """Return why a run may not reach the address, None if it may. `private`: its manifest says that the host may be private."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        kind = _kind(address, _NEVER)
        if kind is not None:
            return f"{address} is not an address of a host ({kind})"
        kind = _kind(address, _SPECIAL)
        if kind is not None:
            within = [network for network in self.private_ranges if any(_inside(network, of) for of in _SPECIAL[kind])]
            return self._private_refusal(address, kind, within, private=private)
        kind = _kind(address, _EMBEDDING)
        if kind is not None:
            return f"{address} is a {kind} form of an IPv4 address; name the IPv4 address"
        if address.is_global and (address.version == 4 or address in _GLOBAL_UNICAST):  # noqa: PLR2004 - of IP
            return None
        return self._private_refusal(address, "private", self.private_ranges, private=private)

    def _private_refusal(self, address: Address, kind: str, ranges: Sequence[Network], *, private: bool) -> str | None:
        if not private:
            return (
                f"{address} is a {kind} address, and the manifest does not declare the destination with `private: true`"
            )
        if not any(address in network for network in ranges):
            return f"{address} is a {kind} address that the platform's egress.privateRanges does not have"
        return None


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks of a list with commas. Raises ValueError that names the one that is none."""
    return tuple(_network(part.strip()) for part in text.split(",") if part.strip())


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        message = f"{text!r} is no network: {error}; write it as 10.0.0.0/8 or fd12:3456::/32"
        raise ValueError(message) from None


def _kind(address: Address, kinds: dict[str, tuple[Network, ...]]) -> str | None:
    return next((kind for kind, networks in kinds.items() if any(address in network for network in networks)), None)


def _inside(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)
