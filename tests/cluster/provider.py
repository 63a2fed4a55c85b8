"""Where a Kubernetes for tests and the demo comes from: the first provider that fits. Needs nothing but Python.

    provider.py up STATE_DIR      brings it up; prints what a shell evaluates (KUBECONFIG, REGISTRY, ...)
    provider.py down STATE_DIR    ends it, and leaves nothing behind
    provider.py which             names the provider; 3, with the reason, where there is none

1. `given`: the one that PENSTOCK_TEST_KUBECONFIG names, with PENSTOCK_TEST_REGISTRY_PUSH (as this machine pushes to it),
   PENSTOCK_TEST_REGISTRY_PULL (as nodes pull from it) and PENSTOCK_TEST_HOST (this machine's address as pods reach it).
   KUBECONFIG alone names nothing: it may be a cluster that people use.
2. `kind`, where a docker or podman engine answers.
3. `packages`, on Debian as root with Go: tests/cluster/machine.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HERE = Path(__file__).resolve().parent
Engine = Literal["docker", "podman"]
Kind = Literal["given", "kind", "packages"]
ENGINES: tuple[Engine, ...] = ("docker", "podman")
PREFIX = "PENSTOCK_TEST_"
GIVEN = ("KUBECONFIG", "REGISTRY_PUSH", "REGISTRY_PULL", "HOST")


class NoClusterError(Exception):
    """No provider fits; the message says what each of them lacks."""


@dataclass(frozen=True)
class Facts:
    """What a machine has."""

    engine: Engine | None
    root: bool
    debian: bool
    go: bool


@dataclass(frozen=True)
class Choice:
    """A provider, with the engine that kind and the images are made by."""

    provider: Kind
    engine: Engine | None = None


@dataclass(frozen=True)
class Access:
    """A Kubernetes that is up, and how images and servers get to it; images/build knows a base image of its own."""

    kubeconfig: Path
    push: str
    pull: str
    host: str
    base_image: str = ""
    builder: str = "buildah"


def choose(environment: Mapping[str, str], facts: Facts) -> Choice:
    """Return the first provider that fits. Pure."""
    named = [name for name in GIVEN if environment.get(PREFIX + name)]
    if "KUBECONFIG" in named:
        missing = [PREFIX + name for name in GIVEN if name not in named]
        if missing:
            message = f"{PREFIX}KUBECONFIG names a cluster, and these say how to reach it: set {', '.join(missing)}"
            raise NoClusterError(message)
        return Choice("given", facts.engine)
    if facts.engine:
        return Choice("kind", facts.engine)
    lacking = [what for what, there in (("root", facts.root), ("Debian", facts.debian), ("Go", facts.go)) if not there]
    if lacking:
        message = (
            f"neither docker nor podman answers, {PREFIX}KUBECONFIG is not set, and a cluster from packages needs"
            f" {' and '.join(lacking)}"
        )
        raise NoClusterError(message)
    return Choice("packages")


def facts() -> Facts:
    """Look at this machine."""
    engine = next((engine for engine in ENGINES if shutil.which(engine) and _answers(engine)), None)
    return Facts(engine, os.geteuid() == 0, shutil.which("apt-get") is not None, shutil.which("go") is not None)


def _answers(engine: Engine) -> bool:
    return subprocess.run([engine, "info"], capture_output=True, check=False).returncode == 0


class Provider:
    """One Kubernetes, its files in one directory. `number` tells clusters on one machine apart."""

    def __init__(self, choice: Choice, state: Path, number: int, environment: Mapping[str, str] = os.environ) -> None:
        self.choice = choice
        self._state = state.resolve()
        self._number = number
        self._environment = {**environment, "CLUSTER_N": str(number)}

    def up(self) -> Access:
        """Bring it up, whatever an earlier one left in the directory, and return how to reach it."""
        match self.choice.provider:
            case "given":
                kubeconfig, push, pull, host = (self._environment[PREFIX + name] for name in GIVEN)
                return Access(Path(kubeconfig), push, pull, host, builder=self.choice.engine or "buildah")
            case "kind":
                said = self._run("kind/up", str(self._state), str(self.choice.engine))
                found = dict(line.split("=", 1) for line in said.splitlines())
                host = self._environment.get(f"{PREFIX}HOST") or found["host"]
                registry = found["registry"]
                return Access(Path(found["kubeconfig"]), registry, registry, host, builder=str(self.choice.engine))
            case "packages":
                self._run("machine/ready")
                if not self._lives():
                    self._run("machine/down", str(self._state))
                    self._run("machine/up", str(self._state))
                node = f"10.250.{self._number}.2:5000"
                return Access(
                    self._state / "kc/admin.conf",
                    node,
                    "localhost:5000",
                    f"10.250.{self._number}.1",
                    f"{node}/python:1",
                )

    def down(self) -> None:
        """End it, and remove the directory. A given cluster stays."""
        match self.choice.provider:
            case "given":
                pass
            case "kind":
                self._run("kind/down", str(self._state), str(self.choice.engine))
            case "packages":
                if self._state.exists():
                    self._run("machine/down", str(self._state), "--wipe")

    def kill_api_server(self) -> None:
        """End the API server as the kernel would."""
        match self.choice.provider:
            case "given":
                message = "a cluster that was named keeps its API server: it is not ours to kill"
                raise NoClusterError(message)
            case "kind":
                self._run("kind/kill-api-server", str(self._state), str(self.choice.engine))
            case "packages":
                self._run("machine/comp", str(self._state), "kill", "apiserver")

    def start_api_server(self) -> None:
        """Start it anew; kind's kubelet does so by itself."""
        if self.choice.provider == "packages":
            self._run("machine/comp", str(self._state), "start", "apiserver")

    def _lives(self) -> bool:
        try:
            os.kill(int((self._state / "pid/init").read_text()), 0)
        except (OSError, ValueError):
            return False
        return True

    def _run(self, script: str, *arguments: str) -> str:
        """Run a script of ours; what it prints besides its answer goes to stderr."""
        done = subprocess.run(
            [HERE / script, *arguments], env=self._environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if script.startswith("machine"):
            sys.stderr.write(done.stdout)
        if done.returncode:
            message = f"{script} {' '.join(arguments)} failed ({done.returncode})"
            raise NoClusterError(message)
        return done.stdout


def main(arguments: list[str]) -> int:
    """Run one command."""
    try:
        choice = choose(os.environ, facts())
        if arguments[:1] == ["which"]:
            print(choice.provider)
            return 0
        command, state = arguments
        provider = Provider(choice, Path(state), int(os.environ.get("CLUSTER_N") or "7"))
        if command == "down":
            provider.down()
            return 0
        access = provider.up()
    except NoClusterError as error:
        print(error, file=sys.stderr)
        return 3
    values = {
        "KUBECONFIG": str(access.kubeconfig),
        "REGISTRY": access.push,
        "PULL": access.pull,
        "BASE": access.base_image,
        "BUILDER": access.builder,
        "PROVIDER": choice.provider,
    }
    print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
