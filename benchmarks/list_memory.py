"""What a list of the largest allowed connections costs the controller in memory, by the number of items of a page.

A fake API server in another process writes the pages. Each size is read in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection as Pipe
from urllib.parse import parse_qs, urlsplit

from kubernetes.aio import client
from penstock_operator.controller.kubernetes_resources import ITEMS_OF_A_PAGE, KubernetesResources
from penstock_operator.resources.documents import Connection
from penstock_sdk.manifest.config_schema import MAX_CONFIG_BYTES

CONNECTIONS = int(os.environ.get("CONNECTIONS", "10000"))
SIZES = (500, ITEMS_OF_A_PAGE[Connection.KIND])


def largest_connection() -> dict[str, object]:
    """Return a connection whose config has as many values as its bytes allow; kubectl keeps a copy of it in an annotation."""
    config = {f"k{number}": number for number in range(MAX_CONFIG_BYTES // 16)}
    spec = {"connector": {"name": "faker", "method": "generate", "version": "^0.1"}, "config": config}
    applied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"spec": spec})}
    metadata = {"name": "c", "namespace": "team", "uid": "u", "resourceVersion": "1", "generation": 1}
    return {"metadata": {**metadata, "annotations": applied}, "spec": spec}


class Pages(BaseHTTPRequestHandler):
    """Answers lists: the cursor is the number of items so far."""

    item = json.dumps(largest_connection()).encode()

    def do_GET(self) -> None:
        """Write one page."""
        asked = parse_qs(urlsplit(self.path).query)
        begun = int(asked.get("continue", ["0"])[0])
        end = min(begun + int(asked["limit"][0]), CONNECTIONS)
        metadata = json.dumps({"continue": str(end)} if end < CONNECTIONS else {}).encode()
        body = b'{"metadata":' + metadata + b',"items":[' + b",".join([self.item] * (end - begun)) + b"]}"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:  # the base class prints each request
        """Print nothing."""


def serve(pipe: Pipe) -> None:
    """Serve until this process is ended, and send the port first."""
    server = HTTPServer(("127.0.0.1", 0), Pages)
    pipe.send(server.server_port)
    server.serve_forever()


@contextmanager
def api_server() -> Iterator[str]:
    """Yield the address of a fake API server."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(theirs,))
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def peak_of(address: str, size: int, pipe: Pipe) -> None:
    """Send how many connections a list has, and by how many MB it raised the peak memory of this process."""

    async def read() -> int:
        api = client.ApiClient(client.Configuration(host=address))
        async with api:
            return sum([len(page) async for page in KubernetesResources(api).pages(Connection)])

    ITEMS_OF_A_PAGE[Connection.KIND] = size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = asyncio.run(read())
    pipe.send((count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def main() -> None:
    """Print a line for each size."""
    multiprocessing.set_start_method("spawn")
    peaks = list[float]()
    with api_server() as address:
        for size in SIZES:
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=peak_of, args=(address, size, theirs))
            process.start()
            count, peak = ours.recv()
            process.join()
            peaks.append(peak)
            print(
                f"{count:,} connections of the largest size, {size} a page: {peak:,.0f} MB, {peak / peaks[0]:.2f} times"
            )


if __name__ == "__main__":
    main()
