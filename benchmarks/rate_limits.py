"""Ten connections share one rate limit: requests made, requests refused by the source, share of the limit used.

python benchmarks/rate_limits.py [REQUESTS [SECONDS [SPANS]]]

Each connection is a thread with its own HTTP client. The source counts the requests of every span that ends with a request, and
refuses what is over the limit. The budget is in a Postgres of its own.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_operator.ids import Namespace
from penstock_operator.rate_limits.leases import lease_requests
from penstock_operator.registry.database import Pool, create_pool
from penstock_operator.registry.migrate import migrate
from penstock_sdk._rate_leases import RequestLease
from penstock_sdk.http import Client, ClientLimits, SharedRateLimiter
from penstock_sdk.manifest import RateRule
from penstock_sdk.testing.source import Answer, FakeSource, Request, Throttled

CONNECTIONS = 10


class LimitedSource:
    """Accepts so many requests in any span."""

    def __init__(self, requests: int, seconds: float) -> None:
        self.requests, self.seconds = requests, seconds
        self.accepted, self.refused = 0, 0
        self._recent = deque[float]()

    def __call__(self, request: Request) -> Answer:
        """Answer a request, or refuse it."""
        while self._recent and request.moment - self._recent[0] >= self.seconds:
            self._recent.popleft()
        if len(self._recent) >= self.requests:
            self.refused += 1
            return Throttled("1").answer(Answer())
        self._recent.append(request.moment)
        self.accepted += 1
        return Answer.of_json([])


class Leases:
    """The leases of the platform, for threads, and the number of calls."""

    def __init__(self, pool: Pool, rule: RateRule, loop: asyncio.AbstractEventLoop) -> None:
        self._pool, self._rule, self._loop = pool, rule, loop
        self.calls = 0

    def __call__(self, host: str, port: int, requests: int) -> RequestLease:
        """Lease requests."""
        assert (host, port) == (self._rule.host, self._rule.port)
        return asyncio.run_coroutine_threadsafe(self._lease(requests), self._loop).result()

    async def _lease(self, requests: int) -> RequestLease:
        self.calls += 1
        async with self._pool.connection() as db, db.transaction():
            lease = await lease_requests(db, [self._rule], Namespace("team"), requests)
        return RequestLease(lease.granted, lease.wait_seconds, lease.valid_seconds)


def read(source: FakeSource, leases: Leases, until: float) -> None:
    """Send requests until the end."""
    limiter = SharedRateLimiter("127.0.0.1", int(source.url.rpartition(":")[2]), leases)
    with Client(source.url, rate_limit=limiter, limits=ClientLimits(timeout=60)) as client:
        while time.monotonic() < until:
            client.get("items")


async def measure(url: str, requests: int, seconds: int, spans: float) -> None:
    """Print the figures."""
    await migrate(url)
    pool = create_pool(url)
    await pool.open(wait=True)
    limited = LimitedSource(requests, seconds)
    with FakeSource(routes={"items": limited}) as source:
        rule = RateRule("127.0.0.1", int(source.url.rpartition(":")[2]), requests, seconds)
        leases = Leases(pool, rule, asyncio.get_running_loop())
        began = time.monotonic()
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            loop = asyncio.get_running_loop()
            reads = [
                loop.run_in_executor(threads, read, source, leases, began + spans * seconds) for _ in range(CONNECTIONS)
            ]
            await asyncio.gather(*reads)
        made = sum(request.moment < began + spans * seconds for request in source.requests) - limited.refused
    await pool.close()
    share = made / (requests * spans)
    print(
        f"{CONNECTIONS} connections, {requests} requests in {seconds} s, for {spans * seconds:.0f} s: {made} requests made,"
        f" {limited.refused} refused by the source, {share:.0%} of the limit used, {leases.calls} calls for leases"
    )


def main() -> None:
    """Run it on a Postgres of its own."""
    requests, seconds, spans = (float(word) for word in [*sys.argv[1:], *("600", "10", "3")[len(sys.argv) - 1 :]])
    with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres(Path(directory) / "postgres") as server:
        asyncio.run(measure(server.url, int(requests), int(seconds), spans))


if __name__ == "__main__":
    threading.stack_size(1 << 20)
    main()
