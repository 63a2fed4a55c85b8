"""`penstock credentials`: rotate the key of stored credentials, and forget one of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from penstock_operator.audit.callers import act_as
from penstock_operator.audit.events import Actor
from penstock_operator.cli.api_session import DATA_DIR, DataDir
from penstock_operator.cli.exit_codes import CommandError
from penstock_operator.cli.names import connection_name
from penstock_operator.cli.output import say
from penstock_operator.connections import connection_store
from penstock_operator.credentials.vault import Rotation, Vault, forget_credential
from penstock_operator.embedded.platform import DataDirectory, backends
from penstock_operator.registry.database import Pool, create_pool
from penstock_operator.settings import credentials_keys, database_url

app = typer.Typer(no_args_is_help=True, help="Credentials that sources replaced: rotate their key, forget one.")


@app.command("rotate-key")
def rotate_key(data_dir: DataDir = DATA_DIR) -> None:
    """Encrypt all stored credentials with the first key of PENSTOCK_CREDENTIALS_KEY.

    With PENSTOCK_DATABASE_URL it works on that registry, as in a pod of the server: put the new key before the old one,
    restart the server, run this, and remove the old key. Else it makes a new key for a data directory. It can be ended at any
    time, and continues when it is run again.

    Example: penstock credentials rotate-key
    """
    rotation = asyncio.run(_rotated(data_dir))
    say(f"{rotation.rotated} credentials are encrypted with the newest key now")
    if rotation.problems:
        raise CommandError("; ".join([*rotation.problems, "keep the old key"]))


@app.command()
def forget(
    connection: Annotated[str, typer.Argument(help="NAMESPACE/NAME")],
    credential: Annotated[str, typer.Argument(help="The name of the credential, as the manifest declares it.")],
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Delete a stored credential: the next run uses the value in the Secret.

    Example: penstock credentials forget team-a/people refresh_token
    """
    namespace, name = connection_name(connection)

    async def forgotten() -> bool:
        async with _opened(data_dir) as (pool, _), pool.connection() as db:
            row = await connection_store.connection_by_name(db, namespace, name)
            return row is not None and await forget_credential(db, row.uid, credential)

    if not asyncio.run(forgotten()):
        raise CommandError(f"there is no stored credential {credential} of a connection {namespace}/{name}")
    say("forgotten: the next run uses the value in the Secret")


async def _rotated(data_dir: Path) -> Rotation:
    async with _opened(data_dir) as (pool, data):
        if data is None:
            keys = credentials_keys()
            if not keys:
                raise CommandError("PENSTOCK_CREDENTIALS_KEY is not set; set it to NEW,OLD as in the server's Secret")
            return await Vault(keys).rotate(pool)
        rotation = await data.vault(new_key=True).rotate(pool)
        if not rotation.problems:
            data.forget_old_keys()
        return rotation


@asynccontextmanager
async def _opened(data_dir: Path) -> AsyncIterator[tuple[Pool, DataDirectory | None]]:
    act_as(Actor(kind="command", name="penstock credentials"))
    async with AsyncExitStack() as stack:
        data = None
        if os.environ.get("PENSTOCK_DATABASE_URL"):
            url = database_url()
        else:
            data = DataDirectory(data_dir)
            data.check()
            data.lock()
            stack.callback(data.unlock)
            url = (await stack.enter_async_context(backends(data))).database_url
        pool = create_pool(url, size=2)
        await pool.open(wait=True, timeout=30)
        stack.push_async_callback(pool.close)
        yield pool, data
