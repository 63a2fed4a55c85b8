"""Replaced credentials in the registry: fenced like every write, encrypted, of one connection, and gone with it."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from penstock_operator.credentials import vault as vault_module
from penstock_operator.credentials.vault import CredentialOwner, TamperedError, Vault, forget_credential
from penstock_operator.errors import Fenced, Invalid
from penstock_operator.ids import ConnectionUid
from penstock_operator.registry.database import DatabaseConnection, many, one
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


async def kept_of_both(vault: Vault, db: DatabaseConnection) -> None:
    """Read the credentials of both connections."""
    for uid in ("c1", "c2"):
        await vault.kept(db, ConnectionUid(uid))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE penstock.credentials SET name = 'password'", "stored credential password .* copied from another row"),
        (
            "INSERT INTO penstock.credentials SELECT 'c2', name, version, ciphertext, updated_at, key_id FROM penstock.credentials",
            "team/c2 .* copied from another row",
        ),
        ("UPDATE penstock.credentials SET version = 3", "was changed"),
        ("UPDATE penstock.credentials SET ciphertext = ciphertext || '1'", "was changed"),
        ("DELETE FROM penstock.credentials", "refresh_token of team/orders was removed"),
        (
            "UPDATE penstock.credentials k SET version = e.version, ciphertext = e.ciphertext FROM earlier e",
            "refresh_token of team/orders was rolled back",
        ),
    ],
)
async def test_a_changed_row_is_noticed_and_named(world: World, change: str, message: str) -> None:
    vault = Vault((KEY,))
    await world.new_connection("c2")
    async with world.pool.connection() as db:
        await vault.keep(db, HOLDER, request("second"))
        await db.execute(b"CREATE TEMPORARY TABLE earlier AS SELECT * FROM penstock.credentials")
        await vault.keep(db, HOLDER, request("third"))
        await db.execute(change.encode())
        with pytest.raises(TamperedError, match=message):
            await kept_of_both(vault, db)


async def test_a_run_whose_credential_was_rolled_back_fails_and_says_what_to_do(world: World) -> None:
    world.protocol = RunProtocol(world.pool, world.store, vault=Vault((KEY,)))
    await world.new_run(token="t1")
    async with world.pool.connection() as db:
        await Vault((KEY,)).keep(db, HOLDER, request("second"))
        await db.execute(b"DELETE FROM penstock.credentials")
        with pytest.raises(Invalid, match="penstock credentials forget team/orders refresh_token"):
            await world.attempt()
        run = await one(db, "SELECT phase, message FROM penstock.connector_runs")
        assert run
        assert run["phase"] == "failed"
        assert "was removed outside of Penstock" in run["message"]
        assert await forget_credential(db, ConnectionUid("c1"), "refresh_token")
        assert await Vault((KEY,)).kept(db, ConnectionUid("c1")) == {}
        assert await Vault((KEY,)).keep(db, HOLDER, request("fourth")) == 3
        assert not await forget_credential(db, ConnectionUid("c1"), "other")


async def test_the_earlier_form_opens_until_the_key_is_rotated(world: World) -> None:
    old, new = Vault((OLD_KEY,)), Vault((KEY, OLD_KEY))
    sealed = json.dumps({"connection": "c1", "name": "refresh_token", "kept": {"value": "second", "seed": SEED}})
    key = base64.urlsafe_b64encode(hashlib.sha256(OLD_KEY.encode()).digest())
    earlier = "INSERT INTO penstock.credentials (connection_uid, name, version, ciphertext) VALUES ('c1', 'refresh_token', 4, %s)"
    async with world.pool.connection() as db:
        await db.execute(earlier.encode(), [Fernet(key).encrypt(sealed.encode())])
        await db.execute(b"CREATE TEMPORARY TABLE earlier AS SELECT * FROM penstock.credentials")
        assert (await old.kept(db, ConnectionUid("c1")))["refresh_token"].value == "second"
        assert (await new.rotate(world.pool)).rotated == 1
        assert (await Vault((KEY,)).kept(db, ConnectionUid("c1")))["refresh_token"].value == "second"
        await db.execute(b"UPDATE penstock.credentials k SET version = 99, ciphertext = e.ciphertext FROM earlier e")
        with pytest.raises(TamperedError, match="rolled back"):
            await new.kept(db, ConnectionUid("c1"))


async def test_a_rotation_that_is_ended_loses_nothing_and_continues(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Vault((OLD_KEY,)), Vault((KEY, OLD_KEY))
    names = [f"token_{number}" for number in range(7)]
    holder = CredentialOwner(ConnectionUid("c1"), frozenset(names))
    async with world.pool.connection() as db:
        for name in names:
            await old.keep(db, holder, request(f"of {name}", name))
    put, calls = vault_module.put_credential, 0

    async def ends(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        await put(*arguments)

    monkeypatch.setattr(vault_module, "put_credential", ends)
    with pytest.raises(KeyboardInterrupt):
        await new.rotate(world.pool)
    async with world.pool.connection() as db:
        kept = await new.kept(db, ConnectionUid("c1"))
    assert {name: credential.value for name, credential in kept.items()} == {name: f"of {name}" for name in names}
    assert (await new.rotate(world.pool)).rotated == 4
    assert (await new.rotate(world.pool)).rotated == 0
    async with world.pool.connection() as db:
        assert len(await Vault((KEY,)).kept(db, ConnectionUid("c1"))) == 7
        assert await Vault((OLD_KEY,)).kept(db, ConnectionUid("c1")) == {}
    unknown = await Vault(("f" * 32,)).rotate(world.pool)
    assert (unknown.rotated, len(unknown.problems)) == (0, 7)
    assert "which is not given" in unknown.problems[0]


async def test_the_version_of_a_credential_never_falls(world: World) -> None:
    async with world.pool.connection() as db:
        await Vault((KEY,)).keep(db, HOLDER, request("second"))
        with pytest.raises(psycopg.Error, match="never falls"):
            await db.execute(b"UPDATE penstock.credential_versions SET version = 0")


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
