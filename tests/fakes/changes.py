"""A handler of changes that remembers them."""

from __future__ import annotations

from penstock_operator.controller.watch import ChangeHandler
from penstock_operator.controller.workqueue import Key


class FakeChangeHandler:
    """Remembers the keys, each with its version, and which of them were listed."""

    def __init__(self) -> None:
        self.changes: list[tuple[Key, str | None]] = []
        self.listed: list[Key] = []

    def __call__(self, key: Key, version: str | None, *, listed: bool = False) -> None:
        """Take a change."""
        self.changes.append((key, version))
        if listed:
            self.listed.append(key)


_: ChangeHandler = FakeChangeHandler()
