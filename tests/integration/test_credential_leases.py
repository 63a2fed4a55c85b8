"""Connections of a namespace that have the same refresh token share it; those of another namespace do not."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from penstock_operator.credentials import credential_leases
from penstock_operator.credentials.credential_leases import LeaseHolder
from penstock_operator.credentials.vault import CredentialOwner, Vault, forget_credentials_of_the_deleted
from penstock_operator.errors import Fenced, Invalid
from penstock_operator.runs.protocol import RunProtocol
from penstock_sdk.protocol import CredentialLeaseRequest, CredentialRequest, IssuedToken

from tests.integration.world import World

VAULT = Vault(("k" * 32,))
SEED = hashlib.sha256(b"from-the-secret").hexdigest()


def holder(uid: str = "c1", namespace: str = "team") -> LeaseHolder:
    return LeaseHolder(CredentialOwner(uid, frozenset({"refresh_token"})), namespace, "run1", 1)


def asking(lease: str, known: str = "from-the-secret") -> CredentialLeaseRequest:
    digest = hashlib.sha256(known.encode()).hexdigest()
    return CredentialLeaseRequest(name="refresh_token", seed=SEED, known=digest, lease=lease * 32)


def got(value: str, lease: str, used: str = "from-the-secret") -> CredentialRequest:
    digest = hashlib.sha256(used.encode()).hexdigest()
    token = IssuedToken(value=f"token-of-{value}", lifetime=300)
    return CredentialRequest(
        name="refresh_token", value=value, seed=SEED, lease=lease * 32, replaces=digest, token=token
    )


async def lease(world: World, who: LeaseHolder, request: CredentialLeaseRequest, vault: Vault = VAULT) -> object:
    async with world.pool.connection() as db, db.transaction():
        return await credential_leases.lease(db, vault, who, request)


async def store(world: World, who: LeaseHolder, request: CredentialRequest) -> int:
    async with world.pool.connection() as db, db.transaction():
        return await credential_leases.store(db, VAULT, who, request)


@pytest.fixture
async def two(world: World) -> World:
    """Two connections of one namespace."""
    await world.new_connection("c2")
    return world


async def test_two_connections_share_what_one_of_them_got(two: World) -> None:
    assert (await lease(two, holder("c1"), asking("a"))).granted
    assert (await lease(two, holder("c2"), asking("b"))).wait_seconds > 0
    await store(two, holder("c1"), got("one", "a"))
    answer = await lease(two, holder("c2"), asking("b"))
    assert (answer.credential.value, answer.token.value, answer.granted) == ("one", "token-of-one", False)
    async with two.pool.connection() as db:
        assert (await VAULT.kept(db, "c2"))["refresh_token"].value == "one"


async def test_the_value_outlives_the_connection_that_got_it(two: World) -> None:
    await lease(two, holder("c1"), asking("a"))
    await store(two, holder("c1"), got("one", "a"))
    await lease(two, holder("c2"), asking("b"))
    async with two.pool.connection() as db:
        await db.execute(b"UPDATE penstock.tenant_connections SET deleted_at = now() WHERE uid = 'c1'")
        await forget_credentials_of_the_deleted(db)
    assert (await lease(two, holder("c2"), asking("b"))).token.value == "token-of-one"


async def test_a_copy_does_not_make_a_token_younger(two: World) -> None:
    await lease(two, holder("c1"), asking("a"))
    await store(two, holder("c1"), got("one", "a"))
    async with two.pool.connection() as db:
        await db.execute(b"UPDATE penstock.credentials SET updated_at = now() - interval '200 seconds'")
    assert (await lease(two, holder("c2"), asking("b"))).token.age == pytest.approx(200, abs=20)
    assert (await lease(two, holder("c1"), asking("a", "one"))).token.age == pytest.approx(200, abs=20)


async def test_a_later_value_reaches_every_connection(two: World) -> None:
    for who, letter in (("c1", "a"), ("c2", "b")):
        await lease(two, holder(who), asking(letter))
        if who == "c1":
            await store(two, holder(who), got("one", letter))
    await store(two, holder("c2"), got("two", "b", used="one"))
    async with two.pool.connection() as db:
        values = [(await VAULT.kept(db, uid))["refresh_token"].value for uid in ("c1", "c2")]
    assert values == ["two", "two"]


async def test_another_namespace_with_the_same_value_shares_nothing(two: World) -> None:
    async with two.pool.connection() as db:
        await db.execute(b"UPDATE penstock.tenant_connections SET namespace = 'other' WHERE uid = 'c2'")
    await lease(two, holder("c1"), asking("a"))
    await store(two, holder("c1"), got("one", "a"))
    answer = await lease(two, holder("c2", "other"), asking("b"))
    assert (answer.granted, answer.credential, answer.token) == (True, None, None)


async def test_ten_pods_at_once_get_one_lease(world: World) -> None:
    answers = await asyncio.gather(*(lease(world, holder(), asking(letter)) for letter in "abcdefghij"))
    assert [answer.granted for answer in answers].count(True) == 1


async def test_a_lease_ends_by_its_time(world: World) -> None:
    await lease(world, holder(), asking("a"))
    async with world.pool.connection() as db:
        await db.execute(b"UPDATE penstock.credential_leases SET expires_at = now()")
    answer = await lease(world, holder(), asking("b"))
    assert (answer.granted, answer.interrupted) == (True, True)


async def test_a_platform_without_a_key_says_so_before_the_token_is_used(world: World) -> None:
    with pytest.raises(Invalid, match="PENSTOCK_CREDENTIALS_KEY"):
        await lease(world, holder(), asking("a"), Vault(()))


async def test_11_the_registry_holds_neither_the_token_nor_the_credential(world: World) -> None:
    await lease(world, holder(), asking("a"))
    async with world.pool.connection() as db:
        held = await (await db.execute(b"SELECT * FROM penstock.credential_leases")).fetchall()
    await store(world, holder(), got("secret-one", "a"))
    async with world.pool.connection() as db:
        rows = await (await db.execute(b"SELECT * FROM penstock.credentials")).fetchall()
    assert SEED not in str(held)
    assert "secret-one" not in str(rows)


async def test_an_attempt_that_ended_long_ago_stores_nothing(world: World) -> None:
    protocol = RunProtocol(world.pool, world.store, vault=VAULT)
    await world.new_run(token="t1")
    run_id, number, token = await world.attempt()
    await world.fail(run_id, number)
    async with world.pool.connection() as db:
        await db.execute(b"UPDATE penstock.run_attempts SET finished_at = now() - interval '11 minutes'")
    with pytest.raises(Fenced):
        await protocol.keep_credential(token, got("one", "a"))


async def test_leases_of_the_past_are_deleted(world: World) -> None:
    await lease(world, holder(), asking("a"))
    async with world.pool.connection() as db:
        await db.execute(b"UPDATE penstock.credential_leases SET expires_at = now() - interval '2 days'")
        await credential_leases.forget_old_leases(db)
        assert await (await db.execute(b"SELECT * FROM penstock.credential_leases")).fetchall() == []
