"""A real Kubernetes, the first that fits (provider.py), and Penstock installed in it by its chart, as a platform team does.

Postgres and S3 are servers of this machine, outside the cluster to a policy, and named by existing Secrets.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Iterator

import pytest
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_operator.settings import S3Settings

from tests.adversarial.attacks import StartAttack, attack_starter, write_table
from tests.cluster.faults import Faults
from tests.cluster.installation import ROOT, Installation
from tests.cluster.kubernetes import Cluster
from tests.cluster.provider import Access, Provider, choose, facts
from tests.cluster.runs import Records
from tests.cluster.servers import VersityGateway

STATE = ROOT / ".state/cluster-test"
NUMBER = int(os.environ.get("CLUSTER_N") or "7")
CONNECTORS = ("faker-generate", "postgres-sql")
CRDS = ("crd/connectordefinitions.penstock.io", "crd/tenantconnections.penstock.io")


@pytest.fixture(scope="session")
def provider() -> Provider:
    """Where the Kubernetes comes from."""
    return Provider(choose(os.environ, facts()), STATE, NUMBER)


@pytest.fixture(scope="session")
def access(provider: Provider) -> Iterator[Access]:
    """A Kubernetes that is new, or one that was named and has no Penstock yet."""
    provider.down()
    found = provider.up()
    if provider.choice.provider == "given":
        there = Cluster(found.kubeconfig).kubectl("get", *CRDS, "--ignore-not-found", "-o", "name").stdout
        assert not there, f"the cluster that was named has Penstock already, and its connections would go: {there}"
    yield found
    provider.down()


@pytest.fixture(scope="session")
def cluster(access: Access) -> Cluster:
    """The Kubernetes."""
    return Cluster(access.kubeconfig)


@pytest.fixture(scope="session")
def images(access: Access) -> dict[str, str]:
    """The images by digest, as pods pull them."""
    names = ["operator", *CONNECTORS]
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "BASE": access.base_image or os.environ.get("BASE", ""),
        "BUILDER": access.builder,
    }
    built = subprocess.run(
        [ROOT / "images/build", access.push, *names], check=False, capture_output=True, text=True, env=environment
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return {
        name: f"{access.pull}/penstock-{name}@{(ROOT / f'.state/images/{name}.digest').read_text().strip()}"
        for name in names
    }


@pytest.fixture(scope="session")
def source_url(access: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Postgres that pods reach: the registry is in it, and a source."""
    directory = tmp_path_factory.mktemp("postgres") / "server"
    with EmbeddedPostgres(directory, host=access.host) as server:
        yield server.url


@pytest.fixture(scope="session")
def bucket(access: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Settings]:
    """An S3 that pods reach."""
    with VersityGateway(tmp_path_factory.mktemp("s3") / "server", host=access.host) as server:
        yield server.settings


@pytest.fixture(scope="session")
def records(source_url: str, bucket: S3Settings) -> Records:
    """What the registry and Bronze say."""
    return Records(source_url, bucket)


@pytest.fixture(scope="session")
def operator(cluster: Cluster, images: dict[str, str], source_url: str, bucket: S3Settings) -> Iterator[Installation]:
    """The release, and the definitions of both connectors."""
    installation = Installation(cluster, images["operator"], source_url, bucket)
    installation.install()
    for name in CONNECTORS:
        command = [sys.executable, "-m", "penstock_operator.cli", "definition", name, "--image", images[name]]
        cluster.kubectl(
            "apply", "-f", "-", stdin=subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        )
    yield installation
    cluster.kubectl("delete", "tc", "--all", "-A", "--timeout=60s")
    installation.uninstall()
    cluster.kubectl("delete", *CRDS)


@pytest.fixture(scope="session")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A tenant, whose namespace enforces the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": labels}})
    yield "team"
    cluster.kubectl("delete", "namespace", "team", "--wait=false")


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> StartAttack:
    """Open an attack, as docs/testing.md shows."""
    return attack_starter(request)


TALLIES = pytest.StashKey[Faults]()


@pytest.fixture(scope="session")
def faults(
    cluster: Cluster, operator: Installation, records: Records, namespace: str, request: pytest.FixtureRequest
) -> Faults:
    """Runs to break; the table of what came of it ends the tier's report."""
    request.config.stash[TALLIES] = Faults(cluster, records, namespace)
    return request.config.stash[TALLIES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tables."""
    write_table(terminalreporter)
    found = config.stash.get(TALLIES, None)
    if found and found.tallies:
        terminalreporter.section("faults")
        terminalreporter.write_line("fault          tried  lost  doubled  away: median, longest (s)")
        for tally in found.tallies:
            terminalreporter.write_line(str(tally))
        for note in found.notes:
            terminalreporter.write_line(note)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the pods and their logs beside a failure."""
    report = yield
    installation = getattr(item, "funcargs", {}).get("operator")
    if report.failed and isinstance(installation, Installation):
        report.sections.append(("the release", installation.logs()))
    return report
