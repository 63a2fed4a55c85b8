"""The bucket. Signing costs no round trip; what does runs in a thread, as boto3 is synchronous."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from penstock_operator.errors import Unavailable

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

    from penstock_operator.settings import S3Settings

UPLOAD_EXPIRY = timedelta(minutes=10)
"""How long the URL of a grant is valid. A pod requests the grant of an object that is ready, and an upload that begins
before the end may go on; so this covers a bucket that does not answer for some minutes."""
UPLOAD_MARGIN = timedelta(minutes=15)
"""How long after that an upload may still arrive: it began before the URL expired, or the clocks differ."""
UPLOAD_END = UPLOAD_EXPIRY + UPLOAD_MARGIN
"""So long after the grant nothing can arrive any more. Only then may the collector forget a grant."""
MOST_AT_ONCE = 1000
"""How many keys one request may delete, and one page of a listing may hold; S3's own limit."""


log = structlog.get_logger()
LOOKS_AT_ONCE = 16
"""How many objects are looked at in parallel. A look takes 2 ms at a bucket nearby, and tens of milliseconds far away."""
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ObjectContent:
    """Size and SHA-256 (hexadecimal) of an object."""

    bytes: int
    sha256: str


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
        max_pool_connections=LOOKS_AT_ONCE,
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
        verify=settings.ca_file,  # None: the system's CAs
    )


class BronzeStore:
    """One bucket and prefix."""

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self._client = s3_client(settings, settings.endpoint)
        self._signer = s3_client(settings, settings.public_endpoint or settings.endpoint)
        self._looking = ThreadPoolExecutor(LOOKS_AT_ONCE, "bronze-look")

    def presign(self, key: str, content: ObjectContent) -> tuple[str, dict[str, str]]:
        """Return the URL and the headers of one PUT that creates the key with this content, and fails with 412 if it exists.

        The headers are signed, so the bucket refuses another size or checksum, and it compares the checksum with the body.
        The URL is valid for UPLOAD_EXPIRY.
        """
        checksum = base64.b64encode(bytes.fromhex(content.sha256)).decode()
        url = self._signer.generate_presigned_url(
            "put_object",
            Params={
                "Bucket": self.settings.bucket,
                "Key": key,
                "IfNoneMatch": "*",
                "ContentLength": content.bytes,
                "ChecksumSHA256": checksum,
            },
            ExpiresIn=int(UPLOAD_EXPIRY.total_seconds()),
        )
        return url, {"If-None-Match": "*", "Content-Length": str(content.bytes), "x-amz-checksum-sha256": checksum}

    async def differences(self, expected: Mapping[str, ObjectContent]) -> dict[str, str]:
        """Return the keys whose object in the bucket is not as expected, each with how it differs.

        Size and checksum are the bucket's own. Of an object that has no checksum there, the body is read. Raises Unavailable
        when the bucket does not answer.
        """
        loop = asyncio.get_running_loop()
        looks = [
            loop.run_in_executor(self._looking, self._difference, key, content) for key, content in expected.items()
        ]
        try:
            found = await asyncio.gather(*looks)
        except (ClientError, BotoCoreError) as error:
            for look in looks:
                look.cancel()
            log.warning("the bucket does not show the objects of a commit", error=str(error))
            message = "the bucket does not answer; try again"
            raise Unavailable(message) from error
        return {key: difference for key, difference in zip(expected, found, strict=True) if difference}

    def _difference(self, key: str, expected: ObjectContent) -> str:
        """Return how an object differs from what is expected; nothing if it does not."""
        try:
            found = self._client.head_object(Bucket=self.settings.bucket, Key=key, ChecksumMode="ENABLED")
        except ClientError as error:
            if _status(error) == HTTPStatus.NOT_FOUND:
                return "the bucket does not hold it"
            raise
        size = found.get("ContentLength")
        if size != expected.bytes:
            return f"it has {size} bytes in the bucket, not {expected.bytes}"
        if self._checksum(key, found) != expected.sha256:
            return "it has another checksum in the bucket"
        return ""

    def _checksum(self, key: str, found: HeadObjectOutputTypeDef) -> str:
        """Return an object's SHA-256, in hexadecimal; a bucket without checksums has to send the body for it."""
        checksum = found.get("ChecksumSHA256", "")
        if checksum and found.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
            return base64.b64decode(checksum).hex()
        digest = hashlib.sha256()
        for piece in self._body(key).iter_chunks(READ_BYTES):
            digest.update(piece)
        return digest.hexdigest()

    def address(self) -> tuple[str, int]:
        """Return the host and the port to which pods upload."""
        parts = urlsplit(self.presign("-", ObjectContent(1, "0" * 64))[0])
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
            if _status(error) != HTTPStatus.PRECONDITION_FAILED:
                raise

    def read(self, key: str) -> bytes:
        """Return an object's bytes."""
        return self._body(key).read()

    def _body(self, key: str) -> StreamingBody:
        return self._client.get_object(Bucket=self.settings.bucket, Key=key)["Body"]

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
        found = [(item["Key"], item["LastModified"]) for item in answer.get("Contents", [])]
        return ListingPage(found, answer.get("NextContinuationToken"))


def _status(error: ClientError) -> int | None:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
