"""The process's one audit hook: hooks cannot be removed, so this one stays and asks what is registered at the moment."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Handler = Callable[[tuple[object, ...]], None]
_handlers: dict[str, Handler] = {}
_installed = False


@contextmanager
def audited(*handlers: tuple[str, Handler]) -> Iterator[None]:
    """Call the handler of an event's name with the event's arguments, while the block runs. It may raise."""
    global _installed  # noqa: PLW0603 - a process has its hook for ever
    if not _installed:
        sys.addaudithook(_on_event)
        _installed = True
    _handlers.update(handlers)
    try:
        yield
    finally:
        for event, _ in handlers:
            _handlers.pop(event, None)


def _on_event(event: str, arguments: tuple[object, ...]) -> None:
    handler = _handlers.get(event)
    if handler is not None:
        handler(arguments)
