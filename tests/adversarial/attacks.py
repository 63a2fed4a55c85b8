"""Attacks: what each one tries, who could try it, the invariant that it attacks, and how often it succeeded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any, Literal, Protocol

import pytest

Actor = Literal[
    "anybody",
    "tenant viewer",
    "tenant editor",
    "connector author",
    "hostile image",
    "source",
    "network neighbour",
    "database reader",
    "bucket reader",
    "bucket writer",
    "platform account",
]
"""Who attacks. `anybody` has a network connection and no token; `platform account` has a service account of the release; the
others are the actors of the threat model."""
ATTACK_PROPERTY = "attack"
"""Name of the property of a test's report that holds an attack's result. pytest-xdist sends it to the main process."""
HEADINGS = ("attack", "actor", "invariant", "tried", "succeeded")


class AttackSucceededError(AssertionError):
    """The platform accepted something that it must refuse."""


@dataclass
class Attack:
    """One attack, tried in one way or in many."""

    name: str
    actor: Actor
    invariant: int
    tried: int = 0
    successes: list[str] = field(default_factory=list)

    def record(self, *, succeeded: bool, detail: object = "") -> None:
        """Count one try. `detail` says what was tried and what was answered; it is shown if the try succeeded."""
        self.tried += 1
        if succeeded:
            self.successes.append(str(detail))


@dataclass(frozen=True)
class AttackResult:
    """One row of the table."""

    name: str
    actor: Actor
    invariant: int
    tried: int
    succeeded: int


class StartAttack(Protocol):
    """The type of the `attack` fixture."""

    def __call__(self, name: str, *, actor: Actor, invariant: int) -> AbstractContextManager[Attack]:
        """Open an attack. At the end of the block, the test fails if a try succeeded or if nothing was tried."""


@contextmanager
def opened_attack(attack: Attack, publish: Callable[[AttackResult], None]) -> Iterator[Attack]:
    """Publish the attack's result at the end of the block. Raises AttackSucceededError if a try succeeded."""
    try:
        yield attack
    finally:
        publish(AttackResult(attack.name, attack.actor, attack.invariant, attack.tried, len(attack.successes)))
    if not attack.tried:
        message = f"{attack.name}: nothing was tried"
        raise AssertionError(message)
    if attack.successes:
        message = f"{attack.name}: {len(attack.successes)} of {attack.tried} tries succeeded: {attack.successes[:5]}"
        raise AttackSucceededError(message)


def property_of(result: AttackResult) -> tuple[str, list[Any]]:
    """Return the result as a property of a test's report, made of JSON types only."""
    return ATTACK_PROPERTY, list(astuple(result))


def results_of(properties: Iterable[tuple[str, Any]]) -> list[AttackResult]:
    """Return the results that the properties of a test's report hold."""
    return [AttackResult(*value) for name, value in properties if name == ATTACK_PROPERTY]


def table(results: Iterable[AttackResult]) -> list[str]:
    """Return the lines of the table. Attacks of one name, actor and invariant are one row."""
    sums = dict[tuple[int, str, str], list[int]]()
    for result in results:
        counts = sums.setdefault((result.invariant, result.name, result.actor), [0, 0])
        counts[0] += result.tried
        counts[1] += result.succeeded
    rows = [
        (name, actor, str(invariant), str(tried), str(succeeded))
        for (invariant, name, actor), (tried, succeeded) in sorted(sums.items())
    ]
    widths = [max(len(row[column]) for row in [HEADINGS, *rows]) for column in range(len(HEADINGS))]
    return [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [HEADINGS, *rows]]


def attack_starter(request: pytest.FixtureRequest) -> StartAttack:
    """Return the value of the `attack` fixture for a test."""
    properties = request.node.user_properties
    return lambda name, *, actor, invariant: opened_attack(
        Attack(name, actor, invariant), lambda result: properties.append(property_of(result))
    )


def write_table(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the table of the attacks of a session, if there were any."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport) and report.when == "call"
    ]
    results = [result for report in reports for result in results_of(report.user_properties)]
    if not results:
        return
    terminalreporter.section("attacks")
    for line in table(results):
        terminalreporter.write_line(line)
    tried, succeeded = (sum(getattr(result, name) for result in results) for name in ("tried", "succeeded"))
    terminalreporter.write_line(f"{tried} tries, {succeeded} succeeded")
