"""Whose a bucket's prefix is: two registries that write below one prefix would take each other's objects for leftovers."""

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
    """Mark the prefix as the installation's, asking until S3 answers, and never return. Raises ForeignBucketError."""
    while True:
        try:
            await claim_bucket(store, installation)
        except ForeignBucketError:
            raise
        except Exception as error:  # noqa: BLE001 - S3 may be away; runs wait for it too
            log.warning("cannot tell whose the bucket is", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            await asyncio.Event().wait()


async def claim_bucket(store: BronzeStore, installation: str) -> None:
    """Mark the prefix as the installation's, unless it is marked. Raises ForeignBucketError where it is another's."""
    owner = await claim_prefix(store, installation)
    if owner != installation:
        raise ForeignBucketError(
            f"{store.settings.bucket}/{owner_key(store.settings.prefix)}: the prefix belongs to installation {owner}, and this registry is"
            f" {installation}. Set another s3.prefix; or, if that installation is gone and its registry with it, set"
            f" installation.id to {owner}, which takes over its connections too"
        )
