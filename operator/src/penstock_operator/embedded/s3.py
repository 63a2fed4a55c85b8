"""An S3 server on this machine that checks signatures and keeps its objects as files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from penstock_operator.bronze.store import s3_client
from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded.private_files import kept_secret, recorded_process, start_time, write_private
from penstock_operator.embedded.server import EmbeddedServer, end_orphan
from penstock_operator.settings import S3Settings

BUCKET = "bronze"


class EmbeddedS3(EmbeddedServer):
    """One server on one data directory, bound to one address."""

    title, log_name = "the embedded S3", "s3.log"
    stop_with, insist_with, orphaned_with = signal.SIGTERM, signal.SIGKILL, signal.SIGKILL
    stop_seconds = 1.0  # an object that was acknowledged is a file

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

    def start(self) -> S3Settings:
        """Start the server, make the bucket, and return how to reach it."""
        self.run()
        return self.settings

    def _prepare(self) -> None:
        if find_spec("ministack") is None:
            message = "the embedded S3 is not installed: pip install 'penstock-operator[embedded]', or set PENSTOCK_S3_ENDPOINT"
            raise EmbeddedError(message)
        if found := recorded_process(self._record):
            end_orphan(*found, signal.SIGKILL)
        self._record.unlink(missing_ok=True)

    @property
    def _record(self) -> Path:
        return self._directory / "s3.pid"

    def _launch(self, log: IO[bytes], lifeline: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "penstock_operator.embedded.s3_server"],
            env=self._environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lifeline,),
        )
        write_private(self._record, f"{process.pid} {start_time(process.pid)}")
        return process

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

    def _is_ready(self) -> bool:
        try:
            socket.create_connection((self._host, self._port or 0), 1).close()
        except OSError:
            return False
        self._make_bucket()
        return True

    def _make_bucket(self) -> None:
        client = s3_client(self.settings, self.settings.endpoint)
        if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=BUCKET)
