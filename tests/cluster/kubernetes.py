"""kubectl, and what a test asks of it."""

from __future__ import annotations

import builtins
import json
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE

TOOL = Path(__file__).resolve().parent / "tool"


@cache
def tool(name: str) -> str:
    """Return where helm, kubectl or versitygw is; it may be built first."""
    return subprocess.run([TOOL, name], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Cluster:
    """A Kubernetes, seen by its administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, seconds: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        command = [tool("kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, check=False, capture_output=True, text=True, timeout=seconds)
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done

    def apply(self, *documents: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": documents}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def refuse(self, document: dict[str, Any]) -> str:
        done = self.kubectl("apply", "-f", "-", stdin=json.dumps(document), check=False)
        assert done.returncode != 0, "the API server took it"
        return done.stderr

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        done = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", check=False)
        document: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return document

    def list(self, kind: str, namespace: str = "", selector: str = "") -> builtins.list[dict[str, Any]]:
        where = ["-n", namespace] if namespace else ["-A"]
        page: dict[str, builtins.list[dict[str, Any]]] = json.loads(
            self.kubectl("get", kind, *where, "-l", selector, "-o", "json").stdout
        )
        return page["items"]

    def until(self, what: str, find: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = find()
            if found:
                return found
            time.sleep(0.3)
        raise AssertionError(f"not within {seconds} s: {what}")

    def condition(self, name: str, namespace: str, reason: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait until the connection's Ready condition has the reason, and return the connection."""

        def found() -> dict[str, Any] | None:
            document = self.get("tc", name, namespace)
            reasons = [
                condition["reason"]
                for condition in document.get("status", {}).get("conditions", [])
                if condition["type"] == "Ready"
            ]
            return document if reasons == [reason] else None

        try:
            connection: dict[str, Any] = self.until(f"{name} is {reason}", found, seconds)
        except AssertionError:
            raise AssertionError(json.dumps(self.get("tc", name, namespace).get("status"), indent=1)) from None
        return connection
