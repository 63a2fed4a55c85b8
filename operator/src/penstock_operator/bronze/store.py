"""The bucket. Signing costs no round trip; what does runs in a thread, as boto3 is synchronous."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from penstock_operator.settings import S3Settings

PRECONDITION_FAILED = 412
UPLOAD_EXPIRY = timedelta(hours=1)
"""How long the URL of a grant is valid. A pod asks for grants in bulk and may upload slowly, so minutes are too short."""
UPLOAD_MARGIN = timedelta(minutes=15)
"""How long after that an upload may still arrive: it began before the URL expired, or the clocks differ."""
UPLOAD_END = UPLOAD_EXPIRY + UPLOAD_MARGIN
"""So long after the grant nothing can arrive any more. Only then may the collector forget a grant."""
MOST_AT_ONCE = 1000
"""How many keys one request may delete, and one page of a listing may hold; S3's own limit."""


class DeletionError(Exception):
    """S3 refused to delete some objects; the message says which one first, and why."""


@dataclass(frozen=True)
class ListingPage:
    """A page of a listing; `token` leads to the next one, None behind the last."""

    objects: list[tuple[str, datetime]]
    token: str | None


def s3_client(settings: S3Settings, endpoint: str | None) -> S3Client:
    """Return a client that signs with version 4 and addresses buckets by path, as every S3-compatible server can."""
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        retries={"mode": "standard", "max_attempts": 4},
        connect_timeout=5,
        read_timeout=30,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=settings.region,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        config=config,
    )


class BronzeStore:
    """One bucket and prefix."""

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self._client = s3_client(settings, settings.endpoint)
        self._signer = s3_client(settings, settings.public_endpoint or settings.endpoint)

    def presign(self, key: str) -> tuple[str, dict[str, str]]:
        """Return the URL and the headers of one PUT that creates the key, and fails with 412 if it exists.

        The URL is valid for UPLOAD_EXPIRY.
        """
        url = self._signer.generate_presigned_url(
            "put_object",
            Params={"Bucket": self.settings.bucket, "Key": key, "IfNoneMatch": "*"},
            ExpiresIn=int(UPLOAD_EXPIRY.total_seconds()),
        )
        return url, {"If-None-Match": "*"}

    def address(self) -> tuple[str, int]:
        """Return the host and the port to which pods upload."""
        parts = urlsplit(self.presign("-")[0])
        return str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)

    async def put_once(self, key: str, document: dict[str, Any]) -> None:
        """Write a JSON document unless the key exists: it is then the same document, written before a lost reply."""
        await asyncio.to_thread(self._put_once, key, json.dumps(document, indent=1).encode())

    def _put_once(self, key: str, body: bytes) -> None:
        try:
            self._client.put_object(
                Bucket=self.settings.bucket, Key=key, Body=body, IfNoneMatch="*", ContentType="application/json"
            )
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != PRECONDITION_FAILED:
                raise

    def read(self, key: str) -> bytes:
        """Return an object's bytes."""
        return self._client.get_object(Bucket=self.settings.bucket, Key=key)["Body"].read()

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Write an object that may be written again, such as a log."""
        await asyncio.to_thread(
            self._client.put_object, Bucket=self.settings.bucket, Key=key, Body=body, ContentType=content_type
        )

    async def delete(self, keys: list[str]) -> None:
        """Delete objects; one that is not there is no error. Raises DeletionError when S3 keeps any of them."""
        for start in range(0, len(keys), MOST_AT_ONCE):
            await asyncio.to_thread(self._delete, keys[start : start + MOST_AT_ONCE])

    def _delete(self, keys: list[str]) -> None:
        answer = self._client.delete_objects(
            Bucket=self.settings.bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
        )
        for refused in answer.get("Errors", []):
            raise DeletionError(f"{refused.get('Key')}: {refused.get('Code')}: {refused.get('Message')}")

    async def list_page(self, prefix: str, token: str | None) -> ListingPage:
        """Return a page of the objects below a prefix, with when each was written."""
        return await asyncio.to_thread(self._list_page, prefix, token)

    def _list_page(self, prefix: str, token: str | None) -> ListingPage:
        more = {"ContinuationToken": token} if token else {}
        answer = self._client.list_objects_v2(Bucket=self.settings.bucket, Prefix=prefix, **more)  # type: ignore[arg-type]
        found = [(each["Key"], each["LastModified"]) for each in answer.get("Contents", [])]
        return ListingPage(found, answer.get("NextContinuationToken"))
