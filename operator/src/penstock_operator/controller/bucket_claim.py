"""The owner of a bucket's prefix. Two registries that write below one prefix would delete each other's objects as uncommitted."""

from __future__ import annotations

import asyncio

import structlog

from penstock_operator.bronze.owner import claim_prefix, owner_key
from penstock_operator.bronze.store import BronzeStore

log = structlog.get_logger()
AGAIN_SECONDS = 10.0


class ForeignBucketError(Exception):
    """The prefix belongs to another installation."""


async def hold_bucket(store: BronzeStore, installation: str) -> None:
    """Mark the prefix as the installation's, retrying until S3 answers, and never return. Raises ForeignBucketError."""
    while True:
        try:
            await claim_bucket(store, installation)
        except ForeignBucketError:
            raise
        except Exception as error:  # noqa: BLE001 - S3 may be unreachable; runs wait for it too
            log.warning("bucket owner not read", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            await asyncio.Event().wait()


async def claim_bucket(store: BronzeStore, installation: str) -> None:
    """Mark the prefix as the installation's, unless it is marked. Raises ForeignBucketError if another installation owns it."""
    owner = await claim_prefix(store, installation)
    if owner != installation:
        raise ForeignBucketError(
            f"{store.settings.bucket}/{owner_key(store.settings.prefix)}: the prefix belongs to installation {owner}, and this registry is"
            f" {installation}. Set another s3.prefix; or, if that installation is gone and its registry with it, set"
            f" installation.id to {owner}, which takes over its connections too"
        )
