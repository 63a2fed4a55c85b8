"""Replaced credentials in the registry: fenced like every write, encrypted, of one connection, and gone with it."""

from __future__ import annotations

import hashlib

import pytest
from penstock_operator.credentials.vault import CredentialOwner, Vault
from penstock_operator.errors import Fenced, Invalid
from penstock_operator.registry.database import many
from penstock_operator.runs.protocol import RunProtocol
from penstock_operator.settings import SettingsError, credentials_keys
from penstock_sdk.protocol import CredentialRequest

from tests.integration.world import World

KEY, OLD_KEY = "k" * 32, "o" * 32
SEED = hashlib.sha256(b"first").hexdigest()
HOLDER = CredentialOwner("c1", frozenset({"refresh_token"}))


def request(value: str, name: str = "refresh_token") -> CredentialRequest:
    return CredentialRequest(name=name, value=value, seed=SEED)


async def test_what_is_kept_opens_again_and_the_same_value_is_no_new_version(world: World) -> None:
    vault = Vault((KEY,))
    async with world.pool.connection() as db:
        assert await vault.keep(db, HOLDER, request("second")) == 1
        assert await vault.keep(db, HOLDER, request("second")) == 1
        assert await vault.keep(db, HOLDER, request("third")) == 2
        kept = await vault.kept(db, "c1")
    assert (kept["refresh_token"].value, kept["refresh_token"].seed) == ("third", SEED)


async def test_11_the_registry_never_holds_a_value(world: World) -> None:
    async with world.pool.connection() as db:
        await Vault((KEY,)).keep(db, HOLDER, request("second"))
        rows = await many(db, "SELECT * FROM penstock.credentials")
    assert "second" not in str(rows)
    assert b"second" not in rows[0]["ciphertext"]


async def test_a_new_key_opens_what_the_old_one_closed_and_a_foreign_one_does_not(world: World) -> None:
    async with world.pool.connection() as db:
        await Vault((OLD_KEY,)).keep(db, HOLDER, request("second"))
        assert (await Vault((KEY, OLD_KEY)).kept(db, "c1"))["refresh_token"].value == "second"
        assert await Vault((KEY,)).kept(db, "c1") == {}
        assert await Vault((KEY,)).keep(db, HOLDER, request("third")) == 2


async def test_a_row_copied_to_another_name_opens_nowhere(world: World) -> None:
    vault = Vault((KEY,))
    async with world.pool.connection() as db:
        await vault.keep(db, HOLDER, request("second"))
        await db.execute(b"UPDATE penstock.credentials SET name = 'password'")
        assert await vault.kept(db, "c1") == {}


async def test_what_cannot_be_kept_is_refused_with_the_remedy(world: World) -> None:
    async with world.pool.connection() as db:
        with pytest.raises(Invalid, match="declares no credential of this name; it declares: refresh_token"):
            await Vault((KEY,)).keep(db, HOLDER, request("second", "other"))
        with pytest.raises(Invalid, match="PENSTOCK_CREDENTIALS_KEY"):
            await Vault(()).keep(db, HOLDER, request("second"))
    with pytest.raises(SettingsError, match=r"PENSTOCK_CREDENTIALS_KEY.*openssl rand"):
        credentials_keys({"PENSTOCK_CREDENTIALS_KEY": f"{KEY},short"})


async def test_3_a_fenced_attempt_cannot_put_an_old_credential_back(world: World) -> None:
    protocol = RunProtocol(world.pool, world.store, vault=Vault((KEY,)))
    await world.new_run(token="t1")
    run_id, number, token = await world.attempt()
    await world.fail(run_id, number)
    with pytest.raises(Fenced):
        await protocol.keep_credential(token, request("second"))
