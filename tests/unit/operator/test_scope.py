"""Which connections are in an installation's scope; selectors mean what they mean to kubectl."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio import client
from penstock_operator.controller.kubernetes_resources import KubernetesResources
from penstock_operator.ids import AttemptNumber, ConnectionName, Namespace, RunId
from penstock_operator.launchers import LaunchedAttempt
from penstock_operator.launchers.jobs import LABEL_INSTALLATION, JobSettings, desired_job
from penstock_operator.launchers.kubernetes import KubernetesLauncher
from penstock_operator.resources.documents import Connection, Definition
from penstock_operator.resources.scope import Scope, SelectorError
from penstock_operator.settings import SettingsError, given_installation, watch_scope
from pytest_httpserver import HTTPServer

from tests.unit.operator.test_jobs import LAUNCH

EMPTY: dict[str, Any] = {"items": [], "metadata": {}}


def covers(selector: str, **labels: str) -> bool:
    return Scope((), selector).covers("team", labels)


@pytest.mark.parametrize(
    ("selector", "labels", "covered"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "b"}, True),
        ("a=b", {"a": "c"}, False),
        ("a=b", {}, False),
        ("a!=b", {"a": "c"}, True),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a in (b, c)", {"a": "c"}, True),
        ("a in (b, c)", {}, False),
        ("a notin (b, c)", {"a": "d"}, True),
        ("a notin (b, c)", {}, True),
        ("a notin (b)", {"a": "b"}, False),
        ("a", {"a": ""}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("! a", {"a": "b"}, False),
        (" a = b , c in (d), !e ", {"a": "b", "c": "d"}, True),
        ("a=b,c in (d),!e", {"a": "b", "c": "d", "e": "f"}, False),
        ("a=", {"a": ""}, True),
    ],
)
def test_a_selector_means_what_it_means_to_kubectl(selector: str, labels: dict[str, str], *, covered: bool) -> None:
    assert covers(selector, **labels) is covered


def test_a_name_may_have_a_domain() -> None:
    assert Scope((), "example.com/stage in (live)").covers("team", {"example.com/stage": "live"})


@pytest.mark.parametrize("wrong", ["=", "a=b=c", "a in b", "a in (b", "(a)", "a b", "a in (b c)", ",a", "a,,b", "a=$"])
def test_what_is_no_selector_is_refused(wrong: str) -> None:
    with pytest.raises(SelectorError):
        Scope((), wrong)


@given(st.text(alphabet="ab=!,() in/.-", max_size=12))
def test_no_text_ends_in_another_error(text: str) -> None:
    with contextlib.suppress(SelectorError):
        Scope((), text).covers("team", {"a": "b"})


def test_a_namespace_that_is_not_listed_is_out_of_scope() -> None:
    scope = Scope(("a", "b"))
    assert [scope.covers(namespace, {}) for namespace in "abc"] == [True, True, False]


def test_the_environment_says_the_scope() -> None:
    found = watch_scope({"PENSTOCK_WATCH_NAMESPACES": "a, b,,a", "PENSTOCK_WATCH_SELECTOR": " x=y "})
    assert found == Scope(("a", "b"), "x=y")
    assert watch_scope({}).is_everything
    for name, value in {"PENSTOCK_WATCH_NAMESPACES": "a b", "PENSTOCK_WATCH_SELECTOR": "a=b=c"}.items():
        with pytest.raises(SettingsError, match=name):
            watch_scope({name: value})
    assert given_installation({"PENSTOCK_INSTALLATION": " x-1 "}) == "x-1"
    assert given_installation({}) is None
    with pytest.raises(SettingsError, match="PENSTOCK_INSTALLATION"):
        given_installation({"PENSTOCK_INSTALLATION": "no id"})


async def test_only_what_is_in_the_scope_is_listed(api: client.ApiClient, httpserver: HTTPServer) -> None:
    """Where namespaces are named, the release may list nothing else."""
    scope = Scope(("a", "b"), "x=y")
    for namespace in scope.namespaces:
        path = f"/apis/penstock.io/v1alpha1/namespaces/{namespace}/tenantconnections"
        query = {"labelSelector": "x=y", "limit": "100"}
        httpserver.expect_request(path, query_string=query).respond_with_json(EMPTY)
        ours = {"labelSelector": "penstock.io/run,penstock.io/installation=i1", "limit": "500"}
        httpserver.expect_request(f"/apis/batch/v1/namespaces/{namespace}/jobs", query_string=ours).respond_with_json(
            EMPTY
        )
        pods = {**ours, "fieldSelector": "status.phase=Pending"}
        httpserver.expect_request(f"/api/v1/namespaces/{namespace}/pods", query_string=pods).respond_with_json(EMPTY)
    httpserver.expect_request("/apis/penstock.io/v1alpha1/connectordefinitions").respond_with_json(EMPTY)
    resources = KubernetesResources(api, scope)
    assert [page async for page in resources.pages(Connection)] == [[], []]
    assert [page async for page in resources.pages(Definition)] == [[]]
    launcher = KubernetesLauncher(api, JobSettings("http://api", "i1"), scope)
    assert [page async for page in launcher.leftovers()] == [[], []]
    attempt = LaunchedAttempt(RunId("r1"), AttemptNumber(1), "j", "u", Namespace("a"), ConnectionName("orders"))
    assert await launcher.observe_many([attempt]) == {}
    httpserver.check_assertions()


def test_a_job_and_its_pod_say_whose_they_are() -> None:
    job = desired_job(LAUNCH, JobSettings("http://api", "i1"))
    for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
        assert labels[LABEL_INSTALLATION] == "i1"
