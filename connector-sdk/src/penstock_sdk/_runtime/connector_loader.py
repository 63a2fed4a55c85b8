"""The connector that is installed in the image: its manifest, read without importing anything, and its class."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import yaml

from penstock_sdk._safe_yaml import load_yaml
from penstock_sdk.contract import Connector
from penstock_sdk.errors import DefectError, describe_error
from penstock_sdk.json_types import JsonObject
from penstock_sdk.protocol import ConnectorIdentity

GROUP = "penstock.connectors"
UNREADABLE = (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, OSError, RecursionError)
"""Errors of a file that is not a manifest: a missing field, a wrong type, bytes that are not UTF-8, endless nesting."""


@dataclass(frozen=True)
class InstalledConnector:
    """A connector, by its entry point."""

    entry: metadata.EntryPoint

    @classmethod
    def find(cls, name: str) -> InstalledConnector:
        """Return the connector with this entry point. Raises DefectError if it is not installed."""
        entry = next(iter(metadata.entry_points(group=GROUP, name=name)), None)
        if entry is None:
            message = f"no installed package has the entry point {name!r} in group {GROUP!r}; install the connector in the image"
            raise DefectError(message)
        return cls(entry)

    def manifest(self) -> JsonObject:
        """Return the manifest from the package's folder. The package is not imported, because an import can fail."""
        package = self.entry.module.split(".")[0]
        spec = find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            path = Path(place) / "connector.yaml"
            if path.exists():
                return _checked(path)
        message = f"the package {package!r} has no connector.yaml; add it to the package's data"
        raise DefectError(message)

    def load(self) -> type[Connector[object, object]]:
        """Import the connector. Raises DefectError for any error of its module, sys.exit() included."""
        try:
            loaded: Any = self.entry.load()
        except BaseException as error:
            raise self._unusable(describe_error(error)) from error
        if not isinstance(loaded, type) or not issubclass(loaded, Connector):
            raise self._unusable("it is not a subclass of penstock_sdk.Connector")
        missing = sorted(getattr(loaded, "__abstractmethods__", ()))
        if missing:
            raise self._unusable(f"{loaded.__name__} does not define {', '.join(missing)}")
        return loaded

    def _unusable(self, why: str) -> DefectError:
        return DefectError(f"the connector {self.entry.name} cannot be loaded from {self.entry.value}: {why}")


def _checked(path: Path) -> JsonObject:
    try:
        manifest = cast("JsonObject", load_yaml(path.read_bytes().decode()))
        identity_of(manifest)
        non_secret_credentials(manifest)
    except UNREADABLE as error:
        problem = f"{type(error).__name__}: {error}"
        message = f"{path.parent.name}/connector.yaml is not a manifest ({problem}); run penstock validate on it"
        raise DefectError(message) from error
    return manifest


def identity_of(manifest: JsonObject) -> ConnectorIdentity:
    """Return the three names of the definition."""
    return ConnectorIdentity(**{key: str(manifest[key]) for key in ("name", "method", "version")})


def non_secret_credentials(manifest: JsonObject) -> frozenset[str]:
    """Return the names of the credentials that messages may show, such as a user name (`secret: false`)."""
    authentication: Any = manifest["authentication"]  # `UNREADABLE` has the errors of another shape
    declared = [credential for method in authentication["methods"] for credential in method.get("credentials", [])]
    return frozenset(credential["name"] for credential in declared if credential.get("secret", True) is False)
