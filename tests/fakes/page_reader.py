"""A list in pages, without an API server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from penstock_operator.apiserver import PageReader


class FakePageReader:
    """Returns items by name, two a page. A page that begins with the item `hanging` never arrives.

    `asked` are the tokens of the pages that were asked for; the first page has an empty one.
    """

    def __init__(self, names: Sequence[str], *, hanging: str | None = None) -> None:
        self._names, self._hanging = list(names), hanging
        self.asked: list[str] = []

    async def __call__(self, **where: Any) -> dict[str, Any]:
        """Return the page that `_continue` names."""
        token = where.get("_continue", "")
        self.asked.append(token)
        first = self._names.index(token) if token else 0
        if self._names[first] == self._hanging:
            await asyncio.Event().wait()
        items = [{"metadata": {"name": name}} for name in self._names[first : first + 2]]
        following = {"continue": self._names[first + 2]} if first + 2 < len(self._names) else {}
        return {"items": items, "metadata": following}


_: PageReader = FakePageReader([])
