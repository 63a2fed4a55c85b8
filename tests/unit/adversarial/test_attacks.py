"""A test of an attack fails when the attack succeeds, and when it tries nothing."""

from __future__ import annotations

import pytest

from tests.adversarial.attacks import (
    Attack,
    AttackResult,
    AttackSucceededError,
    opened_attack,
    property_of,
    results_of,
    table,
)


def test_an_attack_that_never_succeeds_is_published_and_passes() -> None:
    published: list[AttackResult] = []
    with opened_attack(Attack("forge a token", "anybody", 14), published.append) as tries:
        tries.record(succeeded=False)
        tries.record(succeeded=False)
    assert published == [AttackResult("forge a token", "anybody", 14, tried=2, succeeded=0)]


def test_one_success_fails_the_test_and_says_which() -> None:
    published: list[AttackResult] = []

    def forge() -> None:
        with opened_attack(Attack("forge a token", "anybody", 14), published.append) as tries:
            tries.record(succeeded=False, detail="token 6")
            tries.record(succeeded=True, detail="token 7")

    with pytest.raises(AttackSucceededError, match=r"1 of 2 tries succeeded: \['token 7'\]"):
        forge()
    assert published[0].succeeded == 1


def test_an_attack_that_tries_nothing_fails() -> None:
    with pytest.raises(AssertionError, match="nothing was tried"), opened_attack(Attack("x", "source", 1), print):
        pass


def test_the_table_adds_up_attacks_of_one_name() -> None:
    results = [AttackResult("b", "source", 15, 1, 0), AttackResult("a", "anybody", 14, 2, 0)]
    results += results_of([property_of(AttackResult("b", "source", 15, 3, 1)), ("other", 1)])
    assert [line.split() for line in table(results)] == [
        ["attack", "|", "actor", "|", "invariant", "|", "tried", "|", "succeeded"],
        ["a", "|", "anybody", "|", "14", "|", "2", "|", "0"],
        ["b", "|", "source", "|", "15", "|", "4", "|", "1"],
    ]
