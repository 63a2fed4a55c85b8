"""The versions of resources that were seen and written, so that an unchanged one is not reconciled. Losing this cache costs time only."""

from __future__ import annotations

from penstock_operator.controller.workqueue import Key
from penstock_operator.resources.documents import Connection, Definition


class ObservedVersions:
    """By key: the version that the last reconcile left, and the reason why the key is queued."""

    def __init__(self) -> None:
        self._left: dict[Key, str] = {}
        self._event: dict[Key, str] = {}
        self._listed: dict[Key, Connection | Definition] = {}

    def is_news(self, key: Key, version: str) -> bool:
        """Return True if a version differs from the one that a reconcile left, which is the event of our own status."""
        return self._left.get(key) != version

    def event(self, key: Key, version: str, *, waiting: bool) -> None:
        """Record the version of a watch event; a resource that a list returned before may be older.

        A key that is queued already may be there for another reason, so it is then handled whatever this version is.
        """
        self._listed.pop(key, None)
        if not waiting or key in self._event:
            self._event[key] = version

    def listed(self, resource: Connection | Definition) -> None:
        """Keep a resource that a list returned, so that it is not read again."""
        self._event.pop(resource.key, None)
        self._listed[resource.key] = resource

    def requested(self, key: Key) -> None:
        """Have the key handled whatever version was seen."""
        self._event.pop(key, None)

    def is_echo(self, key: Key) -> bool:
        """Return True if the key is queued only for the event of our own status. Call it when the key is handled."""
        version = self._event.pop(key, None)
        return version is not None and not self.is_news(key, version)

    def take(self, key: Key) -> Connection | Definition | None:
        """Return the resource as a list returned it, once."""
        return self._listed.pop(key, None)

    def left(self, key: Key, version: str | None) -> None:
        """Record the version that a reconcile left; None if versions are unknown."""
        if version is None:
            self._left.pop(key, None)
        else:
            self._left[key] = version

    def forget(self, key: Key) -> None:
        """Forget a resource that is gone."""
        for known in (self._left, self._event, self._listed):
            known.pop(key, None)
