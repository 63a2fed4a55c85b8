"""The S3 of the cluster tier: versitygw, a real server on a directory."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import IO

from botocore.exceptions import BotoCoreError, ClientError
from penstock_operator.bronze.store import s3_client
from penstock_operator.embedded.private_files import kept_secret
from penstock_operator.embedded.server import EmbeddedServer
from penstock_operator.settings import S3Settings

from tests.cluster.kubernetes import tool

BUCKET = "bronze"


class VersityGateway(EmbeddedServer):
    """One server on one data directory, bound to one address."""

    title, log_name = "versitygw", "versitygw.log"
    stop_with, insist_with = signal.SIGTERM, signal.SIGKILL

    @property
    def settings(self) -> S3Settings:
        """How to reach the bucket."""
        return S3Settings(
            endpoint=f"http://{self._host}:{self._port}",
            bucket=BUCKET,
            access_key=kept_secret(self._directory / "access-key"),
            secret_key=kept_secret(self._directory / "secret"),
        )

    @property
    def _objects(self) -> Path:
        return self._directory / "objects"

    def _prepare(self) -> None:
        self._objects.mkdir(exist_ok=True)

    def _launch(self, log: IO[bytes], lifeline: int) -> subprocess.Popen[bytes]:
        settings = self.settings
        keys = {"ROOT_ACCESS_KEY": str(settings.access_key), "ROOT_SECRET_KEY": str(settings.secret_key)}
        command = [tool("versitygw"), "--port", f"{self._host}:{self._port}", "posix", str(self._objects)]
        return subprocess.Popen(
            command,
            env={"PATH": os.environ["PATH"], **keys},
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lifeline,),
        )

    def _is_ready(self) -> bool:
        try:
            client = s3_client(self.settings, self.settings.endpoint)
            if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            return False
        return True
