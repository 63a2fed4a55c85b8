"""An S3 server on this machine that checks signatures and keeps its objects as files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from penstock_operator.bronze.store import s3_client
from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded.files import free_port, kept_secret, lock, recorded_process, start_time, write_private
from penstock_operator.settings import S3Settings

BUCKET = "bronze"
START_SECONDS = 30.0


class EmbeddedS3:
    """One server on one data directory, bound to one address."""

    def __init__(self, directory: Path, host: str = "127.0.0.1", port: int | None = None) -> None:
        self._directory = directory.resolve()
        self._host = host
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def settings(self) -> S3Settings:
        """How to reach the bucket."""
        return S3Settings(
            endpoint=f"http://{self._host}:{self._port}",
            bucket=BUCKET,
            prefix="",
            access_key=kept_secret(self._directory / "access-key"),
            secret_key=kept_secret(self._directory / "secret"),
        )

    @property
    def pid(self) -> int:
        """The server's process."""
        if self._process is None:
            raise EmbeddedError("the embedded S3 is not started: call start() first")
        return self._process.pid

    def start(self) -> S3Settings:
        """Start the server and make the bucket; a server that a killed platform left behind is ended first."""
        if find_spec("ministack") is None:
            message = "the embedded S3 is not installed: pip install 'penstock-operator[embedded]', or set PENSTOCK_S3_ENDPOINT"
            raise EmbeddedError(message)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = lock(self._directory)
        try:
            self._end_orphan()
            self._port = self._port or free_port(self._host)
            self._launch()
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self.settings

    def _launch(self) -> None:
        with (self._directory / "s3.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "penstock_operator.embedded.s3_server"],
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        write_private(self._directory / "s3.pid", f"{self._process.pid} {start_time(self._process.pid)}")

    def _environment(self) -> dict[str, str]:
        kept = {
            key: os.environ[key] for key in ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "PYTHONPATH") if key in os.environ
        }
        return {
            **kept,
            "AUTH": "true",
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self._directory / "objects"),
            "STATE_DIR": str(self._directory / "state"),
            "SERVICES": "s3",
            "BIND_HOST": self._host,
            "MINISTACK_HOST": self._host,
            "GATEWAY_PORT": str(self._port),
            "AWS_ACCESS_KEY_ID": kept_secret(self._directory / "access-key"),
            "AWS_SECRET_ACCESS_KEY": kept_secret(self._directory / "secret"),
            "LOG_LEVEL": "WARNING",
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": "unix:///nonexistent",  # at its start, ministack removes the containers of any other
            "XDG_RUNTIME_DIR": str(self._directory),
        }

    def stop(self) -> None:
        """End the server; objects stay. Without a server, this does nothing."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(timeout=10)
            self._process = None
            (self._directory / "s3.pid").unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _end_orphan(self) -> None:
        recorded = self._directory / "s3.pid"
        if found := recorded_process(recorded):
            pid, started = found
            os.kill(pid, signal.SIGKILL)
            while start_time(pid) == started:
                time.sleep(0.02)
        recorded.unlink(missing_ok=True)

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while self._process is not None and self._process.poll() is None and time.monotonic() < end:
            try:
                socket.create_connection((self._host, self._port or 0), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                self._make_bucket()
                return
        tail = (self._directory / "s3.log").read_text(errors="replace").splitlines()[-8:]
        raise EmbeddedError("the embedded S3 does not start:\n" + "\n".join(tail))

    def _make_bucket(self) -> None:
        client = s3_client(self.settings, self.settings.endpoint)
        if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=BUCKET)
