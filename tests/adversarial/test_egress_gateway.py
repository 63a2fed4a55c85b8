"""Ways out of a run's network, tried on the egress gateway: none reaches a host that the manifest does not declare.

A source on 127.0.0.1 is declared and allowed. A forbidden server listens on the other addresses and ports of this machine's
loopback, and counts every connection: one connection is one success of the attacker.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
from collections.abc import AsyncIterator, Iterable
from itertools import product

from penstock_operator.egress.addresses import AddressPolicy, parse_networks
from penstock_operator.egress.gateway import GatewayLimits, resolve
from penstock_sdk.manifest import EgressRule, Manifest, egress_rules

from tests.adversarial.attacks import Attack, StartAttack
from tests.fakes.egress import TOKEN, FakeEgressAuthority, FakeNames, gateway, listening, manifest_document
from tests.unit.operator.test_client_hello import ECH, hello_of, in_records, with_extension

SOURCE_ADDRESS, FORBIDDEN_ADDRESS = "127.0.0.1", "127.0.0.2"
POLICY = AddressPolicy(parse_networks(f"{SOURCE_ADDRESS}/32"))
QUICK = GatewayLimits(head_seconds=0.3, connect_seconds=0.3, resolve_seconds=5.0)
DECLARED = "allowed.example"
SPELLINGS = (
    *f"""
    127.0.0.2 127.0.0.2. 127.0.2 127.2 2130706434 0x7f000002 0x7f.0.0.2 0177.0.0.2 017700000002 127.000.000.002
    [::ffff:127.0.0.2] [::ffff:7f00:2] [::127.0.0.2] [64:ff9b::7f00:2] [2002:7f00:2::] [::1] [0:0:0:0:0:0:0:1] [::]
    0.0.0.0 0 localhost LOCALHOST localhost. localhost.localdomain 169.254.169.254 [fd00:ec2::254]
    metadata.google.internal 10.96.0.1 192.168.0.1 [fe80::1%25lo] 127\u30020\u30020\u30022 \uff11\uff12\uff17.0.0.2
    %31%32%37.0.0.2 127.0.0.2%00.allowed.example allowed.example%2e allowed.example%23 {DECLARED}@127.0.0.2
    127.0.0.2#{DECLARED} 127.0.0.2?{DECLARED} 127.0.0.2/{DECLARED} {DECLARED}\\@127.0.0.2 x.{DECLARED}
    {DECLARED}.127.0.0.2 127.0.0.2,{DECLARED} {DECLARED},127.0.0.2 *
    """.split(),
    f"{DECLARED}\t127.0.0.2",
    f"{DECLARED}\r\nHost:127.0.0.2",
)


class Server:
    """A server on loopback that keeps what it receives. `answer` is what it sends to each client."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.received: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.received.append(b"")
        index = len(self.received) - 1
        writer.write(self.answer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.received[index] += data
        writer.close()


@contextlib.asynccontextmanager
async def server(
    address: str, answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n", port: int = 0
) -> AsyncIterator[Server]:
    """Listen."""
    made = Server(answer)
    listener = await asyncio.start_server(made.serve, address, port)
    made.port = listener.sockets[0].getsockname()[1]
    yield made
    listener.close()


def connect_to(target: str, token: str = TOKEN) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Bearer {token}\r\n\r\n".encode()


def get(url: str, *headers: str, token: str = TOKEN) -> bytes:
    lines = [f"GET {url} HTTP/1.1", *(headers or ["Host: a"]), f"Proxy-Authorization: Bearer {token}", "", ""]
    return "\r\n".join(lines).encode()


async def say(port: int, *parts: bytes) -> bytes:
    """Send each part once the gateway has answered the one before, and return all that it answered."""
    answer = b""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in parts:
            writer.write(part)
            answer += await asyncio.wait_for(reader.read(65536), 5)
        with contextlib.suppress(TimeoutError):
            answer += await asyncio.wait_for(reader.read(65536), 0.05)
        writer.close()
    except (ConnectionError, TimeoutError, UnicodeError):
        pass
    return answer


async def attempt(attack: Attack, forbidden: Iterable[Server], port: int, name: str, *parts: bytes) -> None:
    """Try one way, and look whether a forbidden server has heard of it."""
    before = sum(len(item.received) for item in forbidden)
    answer = await say(port, *parts)
    reached = sum(len(item.received) for item in forbidden) > before
    attack.record(succeeded=reached, detail=f"{name}: {answer[:200]!r}")


async def test_no_spelling_of_a_host_is_a_way_out(attack: StartAttack) -> None:
    async with server(SOURCE_ADDRESS) as source, server(FORBIDDEN_ADDRESS) as other, server(SOURCE_ADDRESS) as beside:
        rules = [
            EgressRule(DECLARED, source.port, private=True),
            EgressRule(f"*.{DECLARED}", source.port, private=True),
        ]
        authority = FakeEgressAuthority(rules)
        names = FakeNames({DECLARED: [[ipaddress.ip_address(SOURCE_ADDRESS)]]})
        async with listening(gateway(authority, POLICY, QUICK, names)) as port:
            with attack("spellings of a host that is not declared", actor="hostile image", invariant=16) as tries:
                for host, secret in product((*SPELLINGS, DECLARED), (other.port, beside.port)):
                    requests = {
                        "CONNECT": connect_to(f"{host}:{secret}"),
                        "whole URL": get(f"http://{host}:{secret}/"),
                        "Host": get(f"http://{DECLARED}:{source.port}/", f"Host: {host}:{secret}"),
                    }
                    for form, request in requests.items():
                        await attempt(tries, (other, beside), port, f"{form} {host}:{secret}", request)
        assert len(source.received) >= len(SPELLINGS), "requests to the declared host did arrive"


async def test_no_value_of_the_config_is_a_way_out(attack: StartAttack) -> None:
    """The tenant chooses the host, and the real resolver of this machine reads it; no private address is allowed."""
    async with server(FORBIDDEN_ADDRESS) as other, server("::1", port=other.port) as other6:
        destination = {"host": "{{config.host}}", "port": "{{config.port}}", "private": True}
        manifest = Manifest.model_validate(manifest_document([destination]))
        with attack("hosts of a tenant's config", actor="tenant editor", invariant=16) as tries:
            for host, allowed in product(SPELLINGS, ("", "10.0.0.0/8", "0.0.0.0/0,::/0")):
                rules = egress_rules(manifest, {"host": host, "port": other.port})
                policy = AddressPolicy(parse_networks(allowed))
                served = gateway(FakeEgressAuthority(rules), policy, QUICK, None)
                async with listening(served) as port:
                    name = rules[0].host if rules else host
                    shown = f"[{name}]" if ":" in name and not name.startswith("[") else name
                    request = connect_to(f"{shown}:{other.port}")
                    await attempt(tries, (other, other6), port, f"config.host {host!r}, ranges {allowed!r}", request)


async def test_no_answer_of_a_name_server_is_a_way_out(attack: StartAttack) -> None:
    rng = random.Random(20261128)
    inside = [FORBIDDEN_ADDRESS, "127.0.0.3", "::1", "::ffff:127.0.0.2", "0.0.0.0"]  # noqa: S104
    async with server("127.0.0.2") as other, server("127.0.0.3", port=other.port), server("::1", port=other.port):
        outside = "192.0.2.1"  # of TEST-NET-1: nothing answers
        with attack("answers of a hostile name server", actor="source", invariant=16) as tries:
            for _ in range(60):
                answers = [
                    [ipaddress.ip_address(rng.choice([*inside, outside])) for _ in range(rng.randrange(1, 4))]
                    for _ in range(rng.randrange(1, 4))
                ]
                authority = FakeEgressAuthority([EgressRule("rebind.example", other.port)])
                served = gateway(authority, AddressPolicy(), QUICK, FakeNames({"rebind.example": answers}))
                async with listening(served) as port:
                    request = connect_to(f"rebind.example:{other.port}")
                    await attempt(tries, [other], port, f"answers {answers}", request)


async def test_no_tls_session_to_another_name_is_a_way_out(attack: StartAttack) -> None:
    evil = b"evil.example"
    entry = b"\0" + len(evil).to_bytes(2) + evil
    second = b"\0\0" + (len(entry) + 2).to_bytes(2) + len(entry).to_bytes(2) + entry
    hellos = {
        "another name": hello_of("evil.example"),
        "another name in small records": in_records(hello_of("evil.example"), 3),
        "no name": hello_of(None),
        "a name below": hello_of(f"x.{DECLARED}"),
        "a longer name": hello_of(f"{DECLARED}.evil.example"),
        "an encrypted name": with_extension(hello_of(DECLARED), ECH),
        "a second name": with_extension(hello_of(DECLARED), second),
        "a record of another kind first": b"\x15\x03\x03\0\x02\x01\0" + hello_of("evil.example"),
        "a change of ciphers first": b"\x14\x03\x03\0\x01\x01" + hello_of("evil.example"),
        "SSL 2": b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10" + bytes(37),
        "no ClientHello": b"\x16\x03\x01\0\x04\x02\0\0\0",
        "a hello that never ends": hello_of(DECLARED)[:-1],
        "Postgres's request, then another name": b"\0\0\0\x08\x04\xd2\x16\x2f" + hello_of("evil.example"),
        "both requests of Postgres, then another name": b"\0\0\0\x08\x04\xd2\x16\x30" + b"\0\0\0\x08\x04\xd2\x16\x2f" + hello_of("evil.example"),
        "HTTP/2 in clear text": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP in clear text": b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "HTTP in clear text, byte by byte": b"G",
        "a nested CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    }  # fmt: skip
    async with server(SOURCE_ADDRESS, answer=b"") as source:
        authority = FakeEgressAuthority([EgressRule(DECLARED, source.port, private=True)])
        names = FakeNames({DECLARED: [[ipaddress.ip_address(SOURCE_ADDRESS)]]})
        async with listening(gateway(authority, POLICY, QUICK, names)) as port:
            with attack(
                "TLS and HTTP that name another host in a tunnel", actor="hostile image", invariant=16
            ) as tries:
                for name, hello in hellos.items():
                    for first in (b"", hello):  # with the CONNECT, or after its answer
                        before = len(source.received)
                        request = connect_to(f"{DECLARED}:{source.port}")
                        await say(port, request + first, *([] if first else [hello]))
                        await asyncio.sleep(0)
                        heard = b"".join(source.received[before:]).removeprefix(b"\0\0\0\x08\x04\xd2\x16\x30")
                        tries.record(
                            succeeded=bool(heard.removeprefix(b"\0\0\0\x08\x04\xd2\x16\x2f")), detail=(name, heard[:80])
                        )


async def test_no_reuse_of_a_connection_is_a_way_out(attack: StartAttack) -> None:
    async with server(FORBIDDEN_ADDRESS) as other:
        redirect = (
            f"HTTP/1.1 302 Found\r\nLocation: http://{FORBIDDEN_ADDRESS}:{other.port}/\r\nContent-Length: 0\r\n\r\n"
        )
        async with server(SOURCE_ADDRESS, redirect.encode()) as source:
            authority = FakeEgressAuthority([EgressRule(DECLARED, source.port, private=True)])
            names = FakeNames({DECLARED: [[ipaddress.ip_address(SOURCE_ADDRESS)]]})
            good, evil = f"http://{DECLARED}:{source.port}/", f"http://{FORBIDDEN_ADDRESS}:{other.port}/"
            smuggled = "Transfer-Encoding: chunked\r\nContent-Length: 4"
            ways = {
                "two requests at once": (get(good) + get(evil),),
                "one request after the other": (get(good), get(evil)),
                "a request after a tunnel": (connect_to(f"{DECLARED}:{source.port}"), get(evil)),
                "CONNECT after a request": (get(good), connect_to(f"{FORBIDDEN_ADDRESS}:{other.port}")),
                "a request in a body": (get(good, "Host: a", "Content-Length: 0") + get(evil),),
                "two lengths": (get(good, "Host: a", *smuggled.split("\r\n")) + b"0\r\n\r\n" + get(evil),),
                "an upgrade": (get(good, "Host: a", "Connection: upgrade", "Upgrade: h2c") + get(evil),),
                "a Via proxy": (get(good, "Host: a", f"X-Forwarded-Host: {FORBIDDEN_ADDRESS}", f"Forwarded: host={FORBIDDEN_ADDRESS}"),),
                "a line break in the target": (get(f"{good}\r\nHost: {FORBIDDEN_ADDRESS}"),),
                "the redirect is followed": (get(good), get(evil)),
                "no token": (get(evil, token=""), connect_to(f"{FORBIDDEN_ADDRESS}:{other.port}", token="")),
                "another token": (connect_to(f"{FORBIDDEN_ADDRESS}:{other.port}", token=TOKEN[:-1]),),
            }  # fmt: skip
            async with listening(gateway(authority, POLICY, QUICK, names)) as port:
                with attack(
                    "connections of the gateway that are used again", actor="hostile image", invariant=16
                ) as tries:
                    for name, parts in ways.items():
                        await attempt(tries, [other], port, name, *parts)


async def test_the_real_resolver_reads_numbers_as_addresses() -> None:
    """The spellings above are a danger: the C library takes them for addresses."""
    assert [str(address) for address in await resolve("2130706434", 80)] == [FORBIDDEN_ADDRESS]
    assert [str(address) for address in await resolve("0x7f.2", 80)] == [FORBIDDEN_ADDRESS]
