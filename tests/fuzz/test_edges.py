"""Every field of both kinds at its edges: refused with a message that names the field, or it can run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from penstock_operator.controller.desired import Stalled, check_resource
from penstock_operator.launchers import AttemptLaunch
from penstock_operator.launchers.jobs import JobSettings, desired_job
from penstock_operator.resources.crds import defaulted
from penstock_operator.resources.documents import parse_resource
from penstock_operator.resources.notations import Duration, MemorySize
from penstock_operator.resources.schedules import CronSchedule, TimeZone
from penstock_operator.resources.versions import matches
from penstock_operator.runs.retry import AttemptFailure, RetryHistory, decide_retry
from penstock_operator.runs.run_spec import RunSpec
from penstock_operator.scheduling.due import next_time
from penstock_sdk.manifest import Manifest

from tests.fuzz.resources import edge_documents
from tests.integration.world import MANIFEST

CONNECTION: dict[str, Any] = {
    "apiVersion": "penstock.io/v1alpha1",
    "kind": "TenantConnection",
    "metadata": {"name": "people", "namespace": "fuzz", "uid": "u"},
    "spec": {"connector": {"name": "faker", "method": "generate"}},
}
DEFINITION: dict[str, Any] = {
    "apiVersion": "penstock.io/v1alpha1",
    "kind": "ConnectorDefinition",
    "metadata": {"name": "faker-generate-0.1.0", "uid": "d"},
    "spec": {"image": f"i@sha256:{'0' * 64}", "manifest": MANIFEST},
}
LEAST = 32 * 2**20


def _runs(spec: dict[str, Any]) -> None:
    """Make all that a run is made of, and see that none of it is nothing."""
    now = datetime(2026, 11, 1, tzinfo=UTC)
    if spec.get("schedule"):
        assert next_time(
            CronSchedule(spec["schedule"]), TimeZone(spec["timeZone"]), int(Duration(spec["jitter"]).seconds), now
        )
    matches("1.2.3", spec["connector"]["version"])
    pinned = RunSpec.parse(spec)
    launch = AttemptLaunch(
        "r",
        1,
        "penstock-r-1",
        None,
        "fuzz",
        "people",
        "u",
        "d",
        "i@sha256:0",
        pinned,
        pinned.resources.limits.memory,
        Manifest.model_validate(MANIFEST),
    )
    job = desired_job(launch, JobSettings("http://api"))
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert MemorySize(container["resources"]["limits"]["memory"]).bytes >= LEAST
    assert container["resources"]["requests"]["cpu"] not in ("0m", "-0m")
    assert job["spec"]["activeDeadlineSeconds"] <= Duration(spec["timeout"]).seconds
    again = decide_retry(
        pinned, RetryHistory(0, 0, spec["resources"]["limits"]["memory"]), AttemptFailure("TransientError")
    )
    assert again is None or again.delay > 0


@pytest.mark.parametrize("base", [CONNECTION, DEFINITION], ids=lambda document: document["kind"])
def test_every_edge_of_every_field_is_refused_by_name_or_can_run(base: dict[str, Any]) -> None:
    tried = refused = 0
    for field, document in edge_documents(base):
        tried += 1
        try:
            check_resource(parse_resource(document))
        except Stalled as stalled:
            refused += 1
            words = stalled.finding.message
            words.encode()
            last = field.split(".")[-1]
            named = last if last != "0" else field.split(".")[-2]
            assert named in words or "Required value" in words, (field, words)
        else:
            filled = defaulted(document)["spec"]
            _runs(filled) if base is CONNECTION else Manifest.model_validate(filled["manifest"])
    assert refused > tried / 4, "most edges are no values"
