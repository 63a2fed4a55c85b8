"""What the chart renders: no Secret read, no wildcard, restricted pods, and a schema that refuses a typo."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from penstock_operator.controller.admission_check import POLICY_VERSION, VERSION_ANNOTATION
from penstock_operator.ids import AttemptNumber, ConnectionName, ConnectionUid, DefinitionName, Namespace, RunId
from penstock_operator.launchers import AttemptLaunch
from penstock_operator.launchers.jobs import JobSettings, desired_job
from penstock_operator.resources.scope import Scope
from penstock_operator.settings import (
    NO_QUOTAS,
    DatabaseRoles,
    EgressSettings,
    Quotas,
    admission_policies,
    database_roles,
    egress,
    egress_probe_port,
    given_installation,
    log_bytes,
    quotas,
    retention,
    timings,
    watch_scope,
)

from tests.unit.operator.conftest import manifest, run_spec

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/penstock"
GIVEN = ("postgres.existingSecret.name=pg", "s3.bucket=bronze", "s3.existingSecret=keys")
QUICKSTART = ("quickstart.enabled=true",)


@cache
def helm_binary() -> str:
    """Helm is found or built; a machine that can do neither fails here, and is told before by tests/chart/run."""
    return subprocess.run(
        [ROOT / "tests/cluster/tool", "helm"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def helm(*values: str, kubernetes: str = "1.33.0") -> subprocess.CompletedProcess[str]:
    flags = [flag for value in values for flag in ("--set", value)]
    command = [helm_binary(), "template", "penstock", str(CHART), "-n", "penstock-system", *flags]
    command += ["--kube-version", kubernetes]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def rendered(*values: str, kubernetes: str = "1.33.0") -> list[dict[str, Any]]:
    done = helm(*values, kubernetes=kubernetes)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def pods(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from (
        document["spec"]["template"]["spec"]
        for document in documents
        if document["kind"] in {"Deployment", "StatefulSet"}
    )


CRD = {"CustomResourceDefinition"}
OWN_POLICY = "penstock.penstock-system.penstock.io"
POLICIES = {"runs.penstock.io", "run-pods.penstock.io", OWN_POLICY}


def named(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Return the documents of a kind by name."""
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


@pytest.mark.parametrize("values", [GIVEN, QUICKSTART])
def test_admission_policies_come_with_the_release_and_the_controller_looks_for_them(values: tuple[str, ...]) -> None:
    documents = rendered(*values)
    policies = named(documents, "ValidatingAdmissionPolicy")
    bindings = named(documents, "ValidatingAdmissionPolicyBinding")
    looked_for = admission_policies(environment(documents, "operate"))
    assert set(looked_for) == POLICIES
    (rule,) = (
        rule
        for rule in named(documents, "ClusterRole")["penstock-operate-penstock-system"]["rules"]
        if "validatingadmissionpolicies" in rule["resources"]
    )
    assert (rule["resourceNames"], rule["verbs"]) == (list(looked_for), ["get"])
    for name in POLICIES:
        assert policies[name]["spec"]["failurePolicy"] == "Fail"
        assert bindings[name]["spec"] == {"policyName": name, "validationActions": ["Deny"]}
        for document in (policies[name], bindings[name]):
            assert document["metadata"]["annotations"] == {VERSION_ANNOTATION: POLICY_VERSION}


def test_admission_policies_are_for_kubernetes_that_has_them_and_may_be_off() -> None:
    def found(*values: str, kubernetes: str = "1.33.0") -> set[str]:
        documents = rendered(*GIVEN, *values, kubernetes=kubernetes)
        bindings = named(documents, "ValidatingAdmissionPolicyBinding")
        policies = named(documents, "ValidatingAdmissionPolicy")
        assert set(bindings) == set(policies)
        return set(policies) & POLICIES

    assert found(kubernetes="1.30.1") == POLICIES
    assert not found(kubernetes="1.29.4")
    assert not found("admission.enabled=false")
    assert found("crds.enabled=false") == {OWN_POLICY}, "those of the cluster come with the CRDs, once"
    assert not admission_policies(environment(rendered(*GIVEN, "admission.enabled=false"), "operate"))


def test_the_policy_of_runs_names_the_controllers_of_all_releases() -> None:
    documents = rendered(*GIVEN, "admission.controllers={staging/blue-penstock-operate}")
    variables = named(documents, "ValidatingAdmissionPolicy")["runs.penstock.io"]["spec"]["variables"]
    (expression,) = (variable["expression"] for variable in variables if variable["name"] == "isController")
    for account in ("penstock-system:penstock-operate", "staging:blue-penstock-operate"):
        assert f'"system:serviceaccount:{account}"' in expression


def test_the_policy_of_the_release_knows_the_volumes_and_variables_of_a_job() -> None:
    """A field that `desired_job` gains must be added to the policy; the cluster tier shows that the policy admits the Job."""
    expressions = " ".join(
        validation["expression"]
        for validation in named(rendered(*GIVEN), "ValidatingAdmissionPolicy")[OWN_POLICY]["spec"]["validations"]
    )
    job = desired_job(
        AttemptLaunch(
            RunId("0" * 22),
            AttemptNumber(1),
            "penstock-0-1",
            None,
            Namespace("team"),
            ConnectionName("orders"),
            ConnectionUid("u"),
            DefinitionName("d"),
            "image@sha256:0",
            run_spec(secretRef={"name": "db"}),
            "64Mi",
            manifest("postgres", "sql", {"type": "basic", "credentials": [{"name": "password"}]}),
        ),
        JobSettings("http://api", "installation", EgressSettings("http://egress")),
    )
    pod = job["spec"]["template"]["spec"]
    for volume in pod["volumes"]:
        assert f"volume.name == '{volume['name']}'" in expressions
    assert all(variable["name"].startswith("PENSTOCK_") for variable in pod["containers"][0]["env"])


def test_a_policy_refuses_a_null_config_where_kubernetes_has_policies() -> None:
    def kinds(*values: str, kubernetes: str) -> set[str]:
        found = rendered(*GIVEN, *values, kubernetes=kubernetes)
        return {item["kind"] for item in found if item["metadata"]["name"] == "tenantconnections.penstock.io"} - CRD

    assert kinds(kubernetes="1.30.1") == {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert not kinds(kubernetes="1.29.4")
    assert not kinds("crds.enabled=false", kubernetes="1.33.0"), "who installs the kinds elsewhere has the policy there"


def test_8_no_role_reads_a_secret_but_for_that_of_the_certificates_and_none_has_a_wildcard() -> None:
    documents = rendered(*GIVEN)
    roles = [document for document in documents if document["kind"] in {"ClusterRole", "Role"}]
    rules = [rule for role in roles if role["metadata"]["name"] != "penstock-certificates" for rule in role["rules"]]
    assert rules
    words = {word for rule in rules for key in ("apiGroups", "resources", "verbs") for word in rule[key]}
    assert not {word for word in words if "*" in word or word.startswith("secrets")}
    (certificates,) = (role for role in roles if role["metadata"]["name"] == "penstock-certificates")
    assert certificates["kind"] == "Role"
    assert certificates["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["penstock-tls"], "verbs": ["get", "update"]}
    ]


@pytest.mark.parametrize("values", [GIVEN, QUICKSTART])
def test_every_pod_meets_the_restricted_standard(values: tuple[str, ...]) -> None:
    found = list(pods(rendered(*values)))
    assert len(found) == (3 if values is GIVEN else 5)
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_the_crds_are_the_generated_ones_and_stay_on_uninstall() -> None:
    found = {
        document["metadata"]["name"]: document
        for document in rendered(*GIVEN)
        if document["kind"] == "CustomResourceDefinition"
    }
    for path in (ROOT / "crds").glob("*.yaml"):
        generated = yaml.safe_load(path.read_text())
        crd = found.pop(generated["metadata"]["name"])
        assert crd["spec"] == generated["spec"]
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not found
    without = rendered(*GIVEN, "crds.enabled=false")
    assert not [item for item in without if item["kind"] == "CustomResourceDefinition"]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((*GIVEN, "serve.replica=2"), "replica"),
        ((*GIVEN, "s3.endpoint=minio:9000"), "endpoint"),
        ((*GIVEN, "logs.keepBytes=1"), "keepBytes"),
        ((*GIVEN, "operate.sweepSeconds=1"), "sweepSeconds"),
        ((*GIVEN, "retention.generationDays=-1"), "generationDays"),
        ((*GIVEN, "fairness.tenants.team-a=0"), "team-a"),
        ((*GIVEN, "fairness.launchRate=-1"), "launchRate"),
        ((*GIVEN, "egress.privateRanges={ten}"), "privateRanges"),
        ((*GIVEN, "admission.controllers={operate}"), "controllers"),
        ((*GIVEN, "admission.placement={hostNetwork}"), "placement"),
        ((*GIVEN, "tls.source=vault"), "source"),
        ((*GIVEN, "tls.source=secret"), "tls.existingSecret"),
        ((*GIVEN, "tls.source=certManager"), "tls.issuerRef"),
        (("s3.bucket=bronze",), "postgres.existingSecret.name"),
        (("postgres.existingSecret.name=pg",), "s3.bucket"),
    ],
)
def test_a_bad_value_is_refused_by_name(values: tuple[str, ...], word: str) -> None:
    done = helm(*values)
    assert done.returncode != 0
    assert word in done.stderr


def aggregated(documents: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Return what the release adds to Kubernetes' own roles."""
    prefix, found = "rbac.authorization.k8s.io/aggregate-to-", dict[str, set[str]]()
    for role in (document for document in documents if document["kind"] == "ClusterRole"):
        for label in role["metadata"]["labels"]:
            if label.startswith(prefix):
                found.setdefault(label.removeprefix(prefix), set()).update(role["rules"][0]["verbs"])
    return found


def test_kubernetes_own_roles_take_connections_in_unless_that_is_not_wanted() -> None:
    look, act = {"get", "list", "watch"}, {"create", "update", "patch", "delete"}
    assert aggregated(rendered(*GIVEN)) == {"view": look, "edit": look | act, "admin": look | act}
    assert aggregated(rendered(*GIVEN, "rbac.aggregate=false")) == {}


def test_the_groups_that_may_see_the_definitions_are_the_platforms_to_name() -> None:
    def groups(*values: str) -> list[str]:
        found = [
            document
            for document in rendered(*GIVEN, *values)
            if document["metadata"]["name"].startswith("penstock-catalog-")
        ]
        assert [item["rules"] for item in found if item["kind"] == "ClusterRole"] in (
            [],
            [
                [
                    {
                        "apiGroups": ["penstock.io"],
                        "resources": ["connectordefinitions"],
                        "verbs": ["get", "list", "watch"],
                    }
                ]
            ],
        )
        bindings = [item for item in found if item["kind"] == "ClusterRoleBinding"]
        return [
            subject["name"] for binding in bindings for subject in binding["subjects"] if subject["kind"] == "Group"
        ]

    assert groups() == ["system:authenticated"]
    assert groups("rbac.catalog={data:engineers,analysts}") == ["data:engineers", "analysts"]
    assert groups("rbac.catalog=null") == []


def test_logs_are_read_by_both_roles_and_nothing_else_of_a_pod_is() -> None:
    roles = {
        document["metadata"]["name"]: document for document in rendered(*GIVEN) if document["kind"] == "ClusterRole"
    }
    for name in ("operate", "serve"):
        role = roles[f"penstock-{name}-penstock-system"]
        of_pods = {
            resource: rule["verbs"] for rule in role["rules"] for resource in rule["resources"] if "pods" in resource
        }
        assert of_pods == {"pods": ["list"] if name == "operate" else ["get", "list"], "pods/log": ["get"]}


def test_what_the_chart_says_of_policy_is_what_the_operator_reads() -> None:
    values = (
        "logs.keepBytes=100000",
        "operate.sweepSeconds=30",
        "operate.recheckMinutes=7",
        "retention.generationDays=30",
        "fairness.runsPerTenant=10",
        "fairness.tenants.team-a=50",
        "fairness.tenants.team-b=5",
        "fairness.launchRate=0.5",
    )
    (operate,) = (
        document
        for document in rendered(*GIVEN, *values)
        if document["metadata"]["name"] == "penstock-operate" and document["kind"] == "Deployment"
    )
    container = operate["spec"]["template"]["spec"]["containers"][0]
    environment = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    assert log_bytes(environment) == 100_000
    assert (timings(environment).sweep, timings(environment).recheck) == (30, 420)
    assert retention(environment).generation_days == 30
    assert quotas(environment) == Quotas(10, {"team-a": 50, "team-b": 5}, None, 0.5, 1)
    defaults = next(
        document["spec"]["template"]["spec"]["containers"][0]["env"]
        for document in rendered(*GIVEN)
        if document["kind"] == "Deployment"
    )
    assert quotas({default["name"]: default.get("value", "") for default in defaults}) == NO_QUOTAS


def test_the_server_reads_what_a_pods_identity_is_made_of_and_changes_nothing() -> None:
    (rules,) = (
        document["rules"]
        for document in rendered(*GIVEN)
        if document["kind"] == "ClusterRole" and document["metadata"]["name"].startswith("penstock-serve-")
    )
    rights = {resource: set(rule["verbs"]) for rule in rules for resource in rule["resources"]}
    assert rights == {
        "tokenreviews": {"create"},
        "subjectaccessreviews": {"create"},
        "jobs": {"get"},
        "namespaces": {"get"},
        "pods": {"get", "list"},
        "pods/log": {"get"},
    }


def test_with_namespaces_the_release_has_rights_in_these_alone() -> None:
    documents = rendered(*GIVEN, "watch.namespaces={team-a,team-b}", "watch.selector=stage=live", "installation.id=x-1")
    everywhere = {
        resource
        for document in documents
        if document["kind"] == "ClusterRole" and document["metadata"]["name"].split("-")[1] in ("operate", "serve")
        for rule in document["rules"]
        for resource in rule["resources"]
    }
    assert everywhere == {
        *("connectordefinitions", "connectordefinitions/status"),
        *("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
        *("tokenreviews", "subjectaccessreviews"),
    }
    roles = [document for document in documents if document["kind"] == "Role" and document["metadata"].get("namespace")]
    assert sorted((role["metadata"]["namespace"], role["metadata"]["name"].split("-")[1]) for role in roles) == [
        ("team-a", "operate"),
        ("team-a", "serve"),
        ("team-b", "operate"),
        ("team-b", "serve"),
    ]
    bound = [
        document
        for document in documents
        if document["kind"] == "RoleBinding" and document["metadata"].get("namespace")
    ]
    assert {item["roleRef"]["kind"] for item in bound} == {"Role"}
    assert len(bound) == 4
    operate = next(
        document
        for document in documents
        if document["kind"] == "Deployment" and document["metadata"]["name"] == "penstock-operate"
    )
    container = operate["spec"]["template"]["spec"]["containers"][0]
    environment = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    assert watch_scope(environment) == Scope(("team-a", "team-b"), "stage=live")
    assert given_installation(environment) == "x-1"


def test_each_release_has_a_lease_of_its_own() -> None:
    documents = rendered(*GIVEN)
    operate = next(
        document
        for document in documents
        if document["kind"] == "Deployment" and "operate" in document["metadata"]["name"]
    )
    named = {
        variable["name"]: variable.get("value")
        for variable in operate["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    (lease,) = (
        document
        for document in documents
        if document["kind"] == "Role" and document["metadata"]["name"].endswith("-lease")
    )
    assert lease["rules"][1]["resourceNames"] == [named["PENSTOCK_LEASE"]] == ["penstock-operate"]


def environment(documents: list[dict[str, Any]], role: str) -> dict[str, str]:
    """Return the environment variables of a role's container that have a value."""
    (found,) = (
        document
        for document in documents
        if document["kind"] == "Deployment" and document["metadata"]["name"] == f"penstock-{role}"
    )
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def test_run_pods_reach_the_run_api_and_the_gateway_and_a_bucket_in_the_cluster() -> None:
    def reached(*values: str) -> tuple[EgressSettings, set[tuple[str, int]]]:
        found = egress(environment(rendered(*values), "operate"))
        assert found is not None
        rules: Any = found.rules
        peers = {
            (rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"], rule["ports"][0]["port"])
            for rule in rules
        }
        return found, peers

    both = {("serve", 8080), ("egress", 8082)}
    given, peers = reached(*GIVEN)
    assert peers == both
    assert not given.bucket_is_direct
    assert given.direct_hosts == ("penstock-egress.penstock-system.svc", "penstock.penstock-system.svc")
    trial, peers = reached(*QUICKSTART)
    assert peers == both | {("s3", 7070)}
    assert trial.bucket_is_direct
    assert "penstock-s3.penstock-system.svc" in trial.direct_hosts


def secrets_of(documents: list[dict[str, Any]], role: str) -> dict[str, dict[str, str]]:
    """Return for each container of a role which Secret each variable comes from."""
    pod = named(documents, "Deployment")[f"penstock-{role}"]["spec"]["template"]["spec"]
    return {
        container["name"]: {
            entry["name"]: entry["valueFrom"]["secretKeyRef"]["name"]
            for entry in container["env"]
            if "secretKeyRef" in entry.get("valueFrom", {})
        }
        for container in [*pod["containers"], *pod.get("initContainers", [])]
    }


def test_each_component_has_its_own_keys_where_they_are_given() -> None:
    database, keys = "PENSTOCK_DATABASE_URL", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    shared = rendered(*GIVEN)
    for role in ("operate", "serve"):
        found = secrets_of(shared, role)
        assert found == {role: {database: "pg", **dict.fromkeys(keys, "keys")}, "migrate": {database: "pg"}}
    own = (
        *("postgres.controller.existingSecret=pg-operate", "postgres.server.existingSecret=pg-serve"),
        *("s3.controllerSecret=keys-operate", "s3.serverSecret=keys-serve", "postgres.server.role=api"),
    )
    documents = rendered(*GIVEN, *own)
    for role in ("operate", "serve"):
        found = secrets_of(documents, role)
        assert found[role] == {database: f"pg-{role}", **dict.fromkeys(keys, f"keys-{role}")}
        assert found["migrate"] == {database: "pg"}, "the owner of the tables migrates"
        (migrate,) = named(documents, "Deployment")[f"penstock-{role}"]["spec"]["template"]["spec"]["initContainers"]
        given = {entry["name"]: entry["value"] for entry in migrate["env"] if "value" in entry}
        assert database_roles(given) == DatabaseRoles("penstock_controller", "api")


def test_each_api_has_a_service_and_run_pods_reach_one_of_them() -> None:
    documents = rendered(*GIVEN)
    services = named(documents, "Service")
    targets = {name: services[name]["spec"]["ports"][0]["targetPort"] for name in ("penstock", "penstock-read")}
    assert targets == {"penstock": "http", "penstock-read": "read"}
    (container,) = named(documents, "Deployment")["penstock-serve"]["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8080, "read": 8084}
    found = egress(environment(documents, "operate"))
    assert found is not None
    rules: Any = found.rules
    assert ports["read"] not in {port["port"] for rule in rules for port in rule["ports"]}
    assert environment(documents, "operate")["PENSTOCK_API_URL"] == "https://penstock.penstock-system.svc"


def test_the_gateway_has_no_rights_no_database_and_no_keys() -> None:
    documents = rendered(*GIVEN)
    given = environment(documents, "egress")
    assert set(given) == {"PENSTOCK_API_URL", "PENSTOCK_EGRESS_PRIVATE_RANGES", "PENSTOCK_TLS_DIRECTORY"}
    (pod,) = (pod for pod in pods(documents) if pod["containers"][0]["name"] == "egress")
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert {entry["name"] for entry in pod["containers"][0]["env"]} == set(given), "nothing comes from a Secret"


def test_private_ranges_are_none_and_all_in_a_trial() -> None:
    def ranges(*values: str) -> str:
        return environment(rendered(*values), "egress")["PENSTOCK_EGRESS_PRIVATE_RANGES"]

    assert ranges(*GIVEN) == ""
    assert ranges(*GIVEN, "egress.privateRanges={10.1.0.0/16,fd12::/32}") == "10.1.0.0/16,fd12::/32"
    assert ranges(*QUICKSTART).startswith("10.0.0.0/8,")


def test_the_controller_may_reach_one_port_of_the_gateway_and_tries_the_other() -> None:
    documents = rendered(*GIVEN)
    (policy,) = (
        document
        for document in documents
        if document["kind"] == "NetworkPolicy" and document["metadata"]["name"] == "penstock-operate"
    )
    allowed = {port["port"] for rule in policy["spec"]["egress"] for port in rule.get("ports", [])}
    forbidden = egress_probe_port(environment(documents, "operate"))
    assert 8082 in allowed
    assert forbidden not in allowed
    assert forbidden
    assert not egress_probe_port(environment(rendered(*GIVEN, "networkPolicy.enabled=false"), "operate"))


def test_without_the_gateway_nothing_of_it_is_left() -> None:
    documents = rendered(*GIVEN, "egress.enabled=false")
    assert not [document for document in documents if document["metadata"]["name"].endswith("-egress")]
    assert egress(environment(documents, "operate")) is None


def of_kind(documents: list[dict[str, Any]], kind: str, part: str) -> list[dict[str, Any]]:
    """Return the documents of a kind that have a part in their names."""
    return [item for item in documents if item["kind"] == kind and part in item["metadata"]["name"]]


def test_tls_is_on_and_every_url_and_probe_says_so() -> None:
    documents = rendered(*GIVEN)
    assert environment(documents, "operate")["PENSTOCK_API_URL"] == "https://penstock.penstock-system.svc"
    assert environment(documents, "egress")["PENSTOCK_API_URL"] == "https://penstock.penstock-system.svc"
    assert environment(documents, "operate")["PENSTOCK_EGRESS_URL"].startswith("https://penstock-egress.")
    for pod in pods(documents):
        (container,) = pod["containers"]
        probes = [container[name].get("httpGet") for name in ("startupProbe", "livenessProbe", "readinessProbe")]
        assert {probe["scheme"] for probe in probes if probe} == {"HTTPS"}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts["tls"] == environment(documents, container["name"])["PENSTOCK_TLS_DIRECTORY"]
    ports = {port["port"] for service in of_kind(documents, "Service", "penstock") for port in service["spec"]["ports"]}
    assert ports == {443, 8082, 8083}


def test_the_cas_own_key_gets_into_no_pod_and_the_secret_is_never_reset() -> None:
    documents = rendered(*GIVEN)
    (secret,) = of_kind(documents, "Secret", "penstock-tls")
    assert "data" not in secret
    assert "stringData" not in secret
    for pod in pods(documents):
        (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "tls")
        sources = [source["secret"] for source in volume["projected"]["sources"]]
        keys = [item["key"] for source in sources for item in source["items"]]
        assert keys == ["tls.crt", "tls.key", "ca.crt"]
        assert not any(source.get("optional") for source in sources), "a pod waits for its certificate"


def test_the_certificates_are_for_each_service_and_renewed_every_day() -> None:
    documents = rendered(*GIVEN)
    (job,) = of_kind(documents, "Job", "penstock-certificates")
    (daily,) = of_kind(documents, "CronJob", "penstock-certificates")
    pod = job["spec"]["template"]
    assert daily["spec"]["jobTemplate"]["spec"]["template"] == pod
    (container,) = pod["spec"]["containers"]
    named = {argument.removeprefix("--service=") for argument in container["args"] if "--service=" in argument}
    hosts = {str(urlsplit(value).hostname) for value in environment(documents, "operate").values() if "://" in value}
    services = {service["metadata"]["name"] for service in of_kind(documents, "Service", "penstock")}
    assert named == services
    assert {host for host in hosts if host.endswith(".svc")} <= {f"{name}.penstock-system.svc" for name in named}
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    (other,) = of_kind(rendered(*GIVEN, "image.reference=penstock:2"), "Job", "penstock-certificates")
    assert other["metadata"]["name"] != job["metadata"]["name"], "a Job cannot be changed"


def test_cert_manager_or_a_given_secret_takes_the_place_of_the_job() -> None:
    issued = rendered(*GIVEN, "tls.source=certManager", "tls.issuerRef.name=internal")
    (certificate,) = of_kind(issued, "Certificate", "penstock")
    assert certificate["spec"]["issuerRef"] == {"name": "internal"}
    assert "penstock-read.penstock-system.svc" in certificate["spec"]["dnsNames"]
    given = rendered(*GIVEN, "tls.source=secret", "tls.existingSecret=ours")
    for documents, secret in ((issued, certificate["spec"]["secretName"]), (given, "ours")):
        assert not [item for item in documents if item["kind"] in {"Job", "CronJob", "Secret"}]
        for pod in pods(documents):
            (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "tls")
            assert {source["secret"]["name"] for source in volume["projected"]["sources"]} == {secret}


def test_without_tls_nothing_of_it_is_left() -> None:
    documents = rendered(*GIVEN, "tls.enabled=false")
    assert not [item for item in documents if item["kind"] in {"Job", "CronJob", "Secret"}]
    assert environment(documents, "operate")["PENSTOCK_API_URL"] == "http://penstock.penstock-system.svc"
    assert "PENSTOCK_TLS_DIRECTORY" not in environment(documents, "serve")
    assert not [volume for pod in pods(documents) for volume in pod["volumes"] if volume["name"] != "tmp"]


def test_the_cas_of_postgres_and_the_bucket_are_files_of_the_pods_that_need_them() -> None:
    documents = rendered(*GIVEN, "postgres.caSecret.name=pg-ca", "s3.caSecret.name=s3-ca", "s3.caSecret.key=root.pem")
    for role in ("operate", "serve"):
        found = environment(documents, role)
        (pod,) = (pod for pod in pods(documents) if pod["containers"][0]["name"] == role)
        volumes = {volume["name"]: volume.get("secret") for volume in pod["volumes"]}
        assert volumes["s3-ca"] == {"secretName": "s3-ca", "items": [{"key": "root.pem", "path": "ca.crt"}]}
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert {f"{mount}/ca.crt" for mount in mounts} >= {
            found["PENSTOCK_S3_CA_FILE"],
            found["PENSTOCK_POSTGRES_CA_FILE"],
        }
        (migration,) = pod["initContainers"]
        assert "/etc/penstock/postgres-ca" in {mount["mountPath"] for mount in migration["volumeMounts"]}
