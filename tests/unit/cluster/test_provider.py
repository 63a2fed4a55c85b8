"""Which Kubernetes the cluster tier takes, and what kind's scripts do: an engine is recorded, as none runs everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.cluster.provider import HERE, Choice, Facts, NoClusterError, Provider, choose

NOTHING = Facts(engine=None, root=False, debian=False, go=False)
DEBIAN = Facts(engine=None, root=True, debian=True, go=True)
DOCKER = Facts(engine="docker", root=True, debian=True, go=True)
GIVEN = {
    "PENSTOCK_TEST_KUBECONFIG": "/home/me/config",
    "PENSTOCK_TEST_REGISTRY_PUSH": "registry.example:5000",
    "PENSTOCK_TEST_REGISTRY_PULL": "registry.cluster:5000",
    "PENSTOCK_TEST_HOST": "10.1.2.3",
}


def test_the_first_that_fits_is_taken() -> None:
    assert choose(GIVEN, DOCKER) == Choice("given", "docker")
    assert choose({}, DOCKER) == Choice("kind", "docker")
    assert choose({}, Facts(engine="podman", root=False, debian=False, go=False)) == Choice("kind", "podman")
    assert choose({}, DEBIAN) == Choice("packages")


def test_a_kubeconfig_that_is_not_named_for_tests_is_left_alone() -> None:
    assert choose({"KUBECONFIG": "/home/me/config"}, DEBIAN) == Choice("packages")


@pytest.mark.parametrize("missing", [name for name in GIVEN if name != "PENSTOCK_TEST_KUBECONFIG"])
def test_a_named_cluster_that_cannot_be_reached_whole_is_refused_by_variable(missing: str) -> None:
    with pytest.raises(NoClusterError, match=f"set {missing}$"):
        choose({name: value for name, value in GIVEN.items() if name != missing}, DOCKER)


@pytest.mark.parametrize("lacking", ["root", "debian", "go"])
def test_without_a_provider_the_reason_is_said(lacking: str) -> None:
    machine = Facts(engine=None, **{item: item != lacking for item in ("root", "debian", "go")})
    with pytest.raises(
        NoClusterError, match=f"needs {lacking}$".replace("debian", "Debian").replace("needs go", "needs Go")
    ):
        choose({}, machine)
    with pytest.raises(NoClusterError, match="root and Debian and Go"):
        choose({}, NOTHING)


def test_a_given_cluster_is_as_it_was_named() -> None:
    access = Provider(Choice("given", "podman"), Path("unused"), 7, GIVEN).up()
    assert (access.push, access.pull, access.host) == ("registry.example:5000", "registry.cluster:5000", "10.1.2.3")
    assert (str(access.kubeconfig), access.builder) == ("/home/me/config", "podman")


# Answers as the engine and kind do, and writes each call down.
RECORDER = r"""#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0") $*" in
  *"{{.State.Running}}"*) echo false ;;
  "kind get nodes"*) echo penstock-3-control-plane ;;
  *"exec -i"*) cat >> "$CALLS" ;;
  *"network inspect kind"*) printf '%s\n' '[{"IPAM": {"Config": [{"Subnet": "fc00::/64", "Gateway": "fc00::1"},' \
    '{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]}}]' ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path) -> dict[str, str]:
    for name in ("docker", "kind"):
        (tmp_path / name).write_text(RECORDER)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"
    path = f"{tmp_path}:{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_TEST_")}
    return {**inherited, "PATH": path, "CALLS": str(calls), "CLUSTER_BIN": str(tmp_path)}


def test_kind_comes_with_a_registry_that_its_nodes_know(engine: dict[str, str], tmp_path: Path) -> None:
    provider = Provider(Choice("kind", "docker"), tmp_path / "state", 3, engine)
    access = provider.up()
    assert (access.push, access.pull, access.host) == ("localhost:5703", "localhost:5703", "172.18.0.1")
    assert access.builder == "docker"
    calls = Path(engine["CALLS"]).read_text().splitlines()
    done = [next(index for index, call in enumerate(calls) if call.startswith(what)) for what in ORDER]
    assert done == sorted(done)
    assert '[host."http://penstock-registry-3:5000"]' in calls
    provider.down()
    calls = Path(engine["CALLS"]).read_text().splitlines()
    assert calls[-2:] == ["kind delete cluster --name penstock-3", "docker rm -f penstock-registry-3"]
    assert not (tmp_path / "state").exists()


def test_kinds_api_server_is_killed_in_its_node_and_left_to_the_kubelet(engine: dict[str, str], tmp_path: Path) -> None:
    provider = Provider(Choice("kind", "docker"), tmp_path / "state", 3, engine)
    provider.kill_api_server()
    provider.start_api_server()
    calls = Path(engine["CALLS"]).read_text().splitlines()
    assert calls == ["docker exec penstock-3-control-plane pkill -KILL kube-apiserver"]


def test_a_named_clusters_api_server_is_not_killed() -> None:
    with pytest.raises(NoClusterError, match="not ours to kill"):
        Provider(Choice("given"), Path("unused"), 7, GIVEN).kill_api_server()


ORDER = (
    "docker run -d -p 127.0.0.1:5703:5000 --name penstock-registry-3",
    "kind create cluster --name penstock-3",
    "kind export kubeconfig",
    "docker exec -i penstock-3-control-plane cp /dev/stdin /etc/containerd/certs.d/localhost:5703/hosts.toml",
    "docker network connect kind penstock-registry-3",
    "docker network inspect kind",
)


def test_kinds_nodes_look_registries_up_in_a_directory() -> None:
    config = yaml.safe_load((HERE / "kind/config.yaml").read_text())
    assert 'config_path = "/etc/containerd/certs.d"' in config["containerdConfigPatches"][0]
