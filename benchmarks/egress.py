"""The egress gateway against a direct connection, in turn: COPY of a table by psycopg, and PUTs of 8 MiB as uploads are.

The gateway is a process of its own, and the client tunnels as a run's process does. Both servers are on this machine, so
that the network costs nothing and the figure is the gateway's worst.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import httpx
import psycopg
from penstock_operator.egress.addresses import AddressPolicy, parse_networks
from penstock_operator.egress.authority import RunEgress
from penstock_operator.egress.gateway import Gateway
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_operator.embedded.s3 import EmbeddedS3
from penstock_operator.ids import AttemptNumber, RunId
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.egress_gateway import EgressGateway
from penstock_sdk.manifest import EgressRule
from psycopg.conninfo import conninfo_to_dict

ROWS, ROUNDS, OBJECTS = int(os.environ.get("ROWS", "500000")), 5, 20
BODY = os.urandom(8 * 1024 * 1024)
TOKEN = "token"  # noqa: S105 - of no run


class Everywhere:
    """Lets one run through to ports of this machine."""

    def __init__(self, ports: list[int]) -> None:
        self._rules = tuple(EgressRule("127.0.0.1", port, private=True) for port in ports)

    async def egress_of(self, token: str) -> RunEgress:
        """Return the rules."""
        del token
        return RunEgress(RunId("run"), AttemptNumber(1), self._rules)

    async def report(self, token: str, report: wire.EgressReport) -> None:
        """Forget the report."""


def serve(ports: list[int], channel: multiprocessing.connection.Connection) -> None:
    """Run a gateway, and send its port."""

    async def run() -> None:
        gateway = Gateway(Everywhere(ports), AddressPolicy(parse_networks("127.0.0.0/8")))
        server = await gateway.listen("127.0.0.1", 0)
        channel.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def copied(url: str, through: EgressGateway | None) -> float:
    """Return how long COPY takes."""
    port = int(str(conninfo_to_dict(url)["port"]))
    address, port = through.tunnel("127.0.0.1", port) if through else ("127.0.0.1", port)
    began = time.perf_counter()
    with (
        psycopg.connect(url, hostaddr=address, port=port) as connection,
        connection.cursor().copy("COPY orders TO STDOUT") as copy,
    ):
        for _ in copy:
            pass
    return time.perf_counter() - began


def uploaded(client: httpx.Client, signed: Callable[[], str]) -> float:
    """Return how long the PUTs take."""
    urls = [signed() for _ in range(OBJECTS)]
    began = time.perf_counter()
    for url in urls:
        client.put(url, content=BODY).raise_for_status()
    return time.perf_counter() - began


def main() -> None:
    """Measure both, and print ratios."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as postgres,
        EmbeddedS3(Path(folder) / "s3") as s3,
    ):
        from penstock_operator.bronze.store import s3_client

        with psycopg.connect(postgres.url) as connection:
            connection.execute(
                "CREATE TABLE orders AS SELECT n, md5(n::text) AS name, n / 3.0 AS price, now() AS updated_at"
                " FROM generate_series(1, %s) n".replace("%s", str(ROWS)).encode()
            )
        signer, names = s3_client(s3.settings, s3.settings.endpoint), iter(range(10**6))

        def signed() -> str:
            key = {"Bucket": s3.settings.bucket, "Key": f"bench/{next(names)}"}
            return str(signer.generate_presigned_url("put_object", Params=key))

        port = int(str(conninfo_to_dict(postgres.url)["port"]))
        s3_port = httpx.URL(str(s3.settings.endpoint)).port or 80
        ours, theirs = multiprocessing.Pipe()
        gateway = multiprocessing.Process(target=serve, args=([port, s3_port], theirs), daemon=True)
        gateway.start()
        client = EgressGateway(f"http://127.0.0.1:{ours.recv()}", TOKEN)
        direct, proxied = httpx.Client(timeout=120), httpx.Client(timeout=120, proxy=client.proxy_url)
        rounds = [
            (
                copied(postgres.url, None),
                copied(postgres.url, client),
                uploaded(direct, signed),
                uploaded(proxied, signed),
            )
            for _ in range(ROUNDS)
        ]
        gateway.terminate()
    copy, through, put, put_through = (median(column) for column in zip(*rounds, strict=True))
    megabytes = OBJECTS * len(BODY) / 1024 / 1024
    print(f"COPY of {ROWS:,} rows: {copy:.2f} s direct, {through / copy:.2f} times as long through the gateway")
    print(f"PUT of {megabytes:.0f} MiB: {put:.2f} s direct, {put_through / put:.2f} times as long through the gateway")


if __name__ == "__main__":
    main()
