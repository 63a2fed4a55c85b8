"""Which addresses a run may reach."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.egress.addresses import AddressPolicy, parse_networks

WIDE = AddressPolicy(parse_networks("0.0.0.0/0, ::/0"))
SPECIAL = [
    *("127.0.0.1", "127.8.8.8", "::1", "169.254.169.254", "169.254.1.1", "fe80::1", "fd00:ec2::254", "100.100.100.200"),
    *("168.63.129.16", "192.0.0.192", "fd20:ce::254"),
]
NEVER = ["0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1"]  # noqa: S104
PRIVATE = ["10.0.0.1", "172.16.3.4", "192.168.1.1", "100.64.0.1", "198.18.0.1", "fd12:3456::1", "192.0.2.1"]
FORMS = ["::ffff:{}", "::ffff:0:{}", "64:ff9b::{}", "64:ff9b:1::{}", "::{}"]


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111"])
def test_a_public_address_needs_no_leave(address: str) -> None:
    assert AddressPolicy().refusal(ipaddress.ip_address(address), private=False) is None


@pytest.mark.parametrize("address", [*PRIVATE, *SPECIAL, *NEVER])
def test_no_other_address_is_reached_without_leave(address: str) -> None:
    found = ipaddress.ip_address(address)
    assert AddressPolicy().refusal(found, private=False)
    assert AddressPolicy().refusal(found, private=True)
    assert WIDE.refusal(found, private=False)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_takes_the_manifest_and_the_platform(address: str) -> None:
    assert WIDE.refusal(ipaddress.ip_address(address), private=True) is None


@pytest.mark.parametrize("address", [*SPECIAL, *NEVER])
def test_a_wide_range_does_not_hold_the_addresses_of_machine_and_cloud(address: str) -> None:
    assert WIDE.refusal(ipaddress.ip_address(address), private=True)


@pytest.mark.parametrize(("address", "allowed"), [("127.0.0.1", "127.0.0.1/32"), ("169.254.7.7", "169.254.7.0/24")])
def test_a_range_inside_a_special_one_allows_it(address: str, allowed: str) -> None:
    policy = AddressPolicy(parse_networks(allowed))
    assert policy.refusal(ipaddress.ip_address(address), private=True) is None
    assert policy.refusal(ipaddress.ip_address(address), private=False)


@given(st.sampled_from([*PRIVATE, *SPECIAL, *NEVER]), st.sampled_from(FORMS))
def test_no_ipv6_form_hides_an_address(address: str, form: str) -> None:
    if ":" not in address:
        assert AddressPolicy().refusal(ipaddress.ip_address(form.format(address)), private=True)


@given(st.ip_addresses())
def test_what_is_allowed_without_leave_is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if AddressPolicy().refusal(address, private=True) is None:
        mapped = getattr(address, "ipv4_mapped", None) or address
        assert mapped.is_global
        assert not mapped.is_multicast


@pytest.mark.parametrize("text", ["10.0.0.1/8", "ten", "10.0.0.0/33", "10.0.0.0-10.1.0.0"])
def test_a_range_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no network"):
        parse_networks(f"10.0.0.0/8,{text}")
