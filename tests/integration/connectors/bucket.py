"""A bucket of the S3 server, as the tests of files-object fill it."""

from __future__ import annotations

import uuid

from penstock_operator.bronze.store import s3_client
from penstock_operator.settings import S3Settings


class Bucket:
    """A bucket of its own for each test."""

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self.client = s3_client(settings, settings.endpoint)
        self.name = f"files-{uuid.uuid4().hex}"
        self.client.create_bucket(Bucket=self.name)

    def put(self, key: str, body: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)
        return f"s3://{self.name}/{key}"

    def path(self, pattern: str) -> str:
        return f"s3://{self.name}/{pattern}"
