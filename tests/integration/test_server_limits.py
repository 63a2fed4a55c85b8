"""A real `penstock serve` stays small and answers its health check, whatever clients without rights send to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import yaml
from penstock_operator.embedded.private_files import free_port

from tests.integration.world import World
from tests.patience import PATIENCE

HALF_OPEN, SENDERS, SENT_BYTES, STREAMS = 2_000, 5, 200 * 1024 * 1024, 100_000
MOST_MEMORY = 300 * 1024
"""KiB."""


class Server:
    """The process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)

    def peak_memory(self) -> int:
        """Return the largest memory that the process has had, in KiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


@pytest.fixture
async def server(world: World, backends_environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Server]:
    """The server on the registry and the bucket of the test; its API server does not answer."""
    del world  # the registry has to be migrated
    nowhere = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    (tmp_path / "kubeconfig").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "none",
                "clusters": [{"name": "none", "cluster": {"server": nowhere}}],
                "users": [{"name": "none", "user": {"token": "none"}}],
                "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
            }
        )
    )
    port = free_port("127.0.0.1")
    environment = {**os.environ, **backends_environment, "KUBECONFIG": str(tmp_path / "kubeconfig")}
    command = [sys.executable, "-m", "penstock_operator.cli", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--read-port", str(free_port("127.0.0.1"))]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: ASYNC220 - it returns at once
    running = Server(process, port)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await running.http.get("/readyz")).is_success:
                        break
                assert process.poll() is None, (tmp_path / "log").read_text()
                await asyncio.sleep(0.1)
        yield running
    finally:
        await running.http.aclose()
        process.kill()
        process.wait()


async def send_without_token(port: int) -> None:
    """Send a large body until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /v1/attempts/streams HTTP/1.1\r\nHost: x\r\nContent-Length: {SENT_BYTES}\r\n\r\n".encode())
    with contextlib.suppress(ConnectionError):
        for _ in range(SENT_BYTES // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()
        await reader.read()
    writer.close()


async def test_the_server_stays_small_and_answers_its_health_check(server: Server, world: World) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * HALF_OPEN)), hard))
    opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(HALF_OPEN)]
    for _, writer in opened:
        writer.write(b"POST /v1/attempts/start HTTP/1.1\r\nHost: x\r\n")
    assert (await server.http.get("/healthz")).status_code == 200
    senders = [asyncio.create_task(send_without_token(server.port)) for _ in range(SENDERS)]
    assert (await server.http.get("/healthz")).status_code == 200
    await asyncio.gather(*senders)
    await world.new_run()
    _, _, token = await world.attempt(discover=False)
    stream = '{"name":"s%d","schema":{"type":"object","properties":{"n":{"type":"integer"}}}}'
    body = f'{{"streams":[{",".join(stream % number for number in range(STREAMS))}]}}'
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    posting = asyncio.create_task(server.http.post("/v1/attempts/streams", content=body, headers=headers))
    assert (await server.http.get("/healthz")).status_code == 200
    refused = await posting
    assert refused.status_code == 413, refused.text[:300]
    assert "JSON values; at most 500,000 are accepted" in refused.json()["message"]
    assert server.peak_memory() < MOST_MEMORY
    for _, writer in opened:
        writer.close()
