"""Print the objects of a bucket and the first records of each: `show_bronze.py ENDPOINT BUCKET`, keys by environment."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator

import boto3
import zstandard
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError

SHOWN = 3
TRIES = 50


def keys(endpoint: str, bucket: str) -> Iterator[tuple[str, bytes]]:
    """Yield every object with its bytes."""
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(s3={"addressing_style": "path"})
    )
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for content in page.get("Contents", []):
            yield content["Key"], client.get_object(Bucket=bucket, Key=content["Key"])["Body"].read()


def show(key: str, body: bytes) -> None:
    """Print one object's name, size and first records."""
    print(f"{len(body):>9} {key}")
    if key.endswith(".jsonl.zst"):
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(body), encoding="utf-8")
        for _, line in zip(range(SHOWN), lines, strict=False):
            print(f"          {json.dumps(json.loads(line)['data'])[:200]}")


def main(endpoint: str, bucket: str) -> None:
    """Show what there is; the forwarded port may need a moment."""
    for attempt in range(TRIES):
        try:
            for key, body in keys(endpoint, bucket):
                show(key, body)
        except EndpointConnectionError:
            if attempt == TRIES - 1:
                raise
            time.sleep(0.2)
        else:
            return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
