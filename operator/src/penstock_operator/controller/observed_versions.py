"""What was last seen and written of each resource, so that no news is no work. A cache: losing it costs time only."""

from __future__ import annotations

from penstock_operator.controller.workqueue import Key
from penstock_operator.resources.documents import Connection, Definition


class ObservedVersions:
    """By key: the version that a reconcile left behind, and why the key is on the queue."""

    def __init__(self) -> None:
        self._left: dict[Key, str] = {}
        self._event: dict[Key, str] = {}
        self._listed: dict[Key, Connection | Definition] = {}

    def is_news(self, key: Key, version: str) -> bool:
        """Say whether a version differs from the one that a reconcile left; that one is the echo of our own status."""
        return self._left.get(key) != version

    def event(self, key: Key, version: str, *, waiting: bool) -> None:
        """A watch saw this version: what a list has seen before may be older.

        A key that waits already may do so for more than an event, and is then no echo whatever comes.
        """
        self._listed.pop(key, None)
        if not waiting or key in self._event:
            self._event[key] = version

    def listed(self, resource: Connection | Definition) -> None:
        """Keep a resource that a list returned, so that it is not read again."""
        self._event.pop(resource.key, None)
        self._listed[resource.key] = resource

    def requested(self, key: Key) -> None:
        """The key is to be handled whatever was seen of it."""
        self._event.pop(key, None)

    def is_echo(self, key: Key) -> bool:
        """Say, when a key's turn comes, whether it is on the queue for nothing but an echo."""
        version = self._event.pop(key, None)
        return version is not None and not self.is_news(key, version)

    def take(self, key: Key) -> Connection | Definition | None:
        """Return the resource as a list returned it, once."""
        return self._listed.pop(key, None)

    def left(self, key: Key, version: str | None) -> None:
        """A reconcile is done, and the resource has this version now; None where versions are unknown."""
        if version is None:
            self._left.pop(key, None)
        else:
            self._left[key] = version

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        for known in (self._left, self._event, self._listed):
            known.pop(key, None)
