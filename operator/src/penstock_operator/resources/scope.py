"""Which connections an installation works on: those of some namespaces, with some labels. Without either, all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

LABEL_NAME = r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
LABEL_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?"
NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
REQUIREMENT = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<missing>{LABEL_NAME})"
    rf"|(?P<name>{LABEL_NAME})\s*(?:(?P<sign>==|=|!=)\s*(?P<value>{LABEL_VALUE})"
    rf"|\s(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)


class SelectorError(ValueError):
    """A label selector cannot be understood; the message says where."""


@dataclass(frozen=True)
class Requirement:
    """One term of a selector: the label has one of the values, or, where `is_met` is False, none of them.

    Without values, the label is there, or is not.
    """

    name: str
    values: frozenset[str] | None
    is_met: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether the labels meet it."""
        found = self.name in labels and (self.values is None or labels[self.name] in self.values)
        return found is self.is_met


def parse_selector(text: str) -> tuple[Requirement, ...]:
    """Return the requirements of a selector as kubectl takes it: `a=b`, `a!=b`, `a in (b, c)`, `a notin (b)`, `a`, `!a`."""
    found, rest = list[Requirement](), text.strip()
    while rest:
        match = REQUIREMENT.match(rest)
        if match is None:
            raise SelectorError(
                f"cannot be understood from {rest!r} on; write team=sales,stage in (test, live),!legacy"
            )
        found.append(_requirement(match))
        rest = rest[match.end() :]
    return tuple(found)


def _requirement(match: re.Match[str]) -> Requirement:
    if match["absent"]:
        return Requirement(match["missing"], None, is_met=False)
    if match["sign"]:
        return Requirement(match["name"], frozenset({match["value"]}), is_met=match["sign"] != "!=")
    if match["set"]:
        values = frozenset(value.strip() for value in match["values"].split(","))
        wrong = sorted(value for value in values if not re.fullmatch(LABEL_VALUE, value))
        if wrong:
            raise SelectorError(f"{wrong[0]!r} is no value of a label")
        return Requirement(match["name"], values, is_met=match["set"] == "in")
    return Requirement(match["name"], None, is_met=True)


@dataclass(frozen=True)
class Scope:
    """The namespaces, none of which means all, and the labels of the connections that an installation works on."""

    namespaces: tuple[str, ...] = ()
    selector: str = ""

    def __post_init__(self) -> None:
        parse_selector(self.selector)

    @property
    def is_everything(self) -> bool:
        """Whether no connection is left out."""
        return not self.namespaces and not self.selector

    def has_namespace(self, namespace: str) -> bool:
        """Say whether connections of a namespace may be in it."""
        return not self.namespaces or namespace in self.namespaces

    def covers(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Return True if a connection of this namespace with these labels is in it."""
        return self.has_namespace(namespace) and all(
            requirement.matches(labels) for requirement in parse_selector(self.selector)
        )


EVERYTHING = Scope()
