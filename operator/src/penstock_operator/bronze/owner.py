"""Whose a prefix of the bucket is, as an object in it says."""

from __future__ import annotations

import asyncio
import json

from botocore.exceptions import ClientError

from penstock_operator.bronze.store import BronzeStore

MISSING = ("NoSuchKey", "404")


def owner_key(prefix: str) -> str:
    """Return the key of the object that names the prefix's installation."""
    return f"{prefix}/_installation.json" if prefix else "_installation.json"


async def owner_of_prefix(store: BronzeStore) -> str | None:
    """Return the id of the prefix's installation, None where no installation has marked it."""
    try:
        body = await asyncio.to_thread(store.read, owner_key(store.settings.prefix))
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in MISSING:
            return None
        raise
    owner: str = json.loads(body)["installation"]
    return owner


async def claim_prefix(store: BronzeStore, installation: str) -> str:
    """Mark the prefix as the installation's unless it is marked, and return whose it is."""
    await store.put_once(owner_key(store.settings.prefix), {"installation": installation})
    return await owner_of_prefix(store) or installation
