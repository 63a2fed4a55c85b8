"""What the guides for authors say is done as they say it: their code is run, their YAML checked, their commands known."""

from __future__ import annotations

import io
import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import httpx
import pytest
import typer
import yaml
from msgspec.structs import replace
from penstock_operator.cli.main import app as operator_app
from penstock_operator.state.document import StateDocument
from penstock_sdk import (
    AuthenticationError,
    Batch,
    ConfigError,
    Connector,
    Estimate,
    SourceContractError,
    Stream,
    TransientError,
)
from penstock_sdk._runtime.assignment import build
from penstock_sdk.auth import LocalCredential, auth_for
from penstock_sdk.author.commands import app as author_app
from penstock_sdk.contract import rows_of
from penstock_sdk.json_types import JsonObject, properties_of
from penstock_sdk.manifest import Manifest, manifest_problems
from penstock_sdk.testing.source import Answer, Collection, FakeSource, Route, tied_rows
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.unit.docs.guides import DOCS, blocks, commands, guide

AUTHORS = sorted((DOCS / "authors").glob("*.md"))
PAGES = sorted(DOCS.rglob("*.md"))
WRITTEN = [page for page in PAGES if page.parent.name != "reference"]
MANIFEST = yaml.safe_load(
    (DOCS.parent / "connectors/faker-generate/src/penstock_faker_generate/connector.yaml").read_text()
)


def without_its_own(cls: type[Any], **methods: Any) -> Any:
    """Return a guide's connector with what the guide leaves to its reader."""
    ordinary = {"authenticate": lambda _: None, "discover": lambda _: (), "read": lambda *_: iter(())}
    missing = {name: ordinary[name] for name in cls.__abstractmethods__}
    return type(cls.__name__, (cls,), {**missing, **methods})


@pytest.mark.parametrize("page", AUTHORS, ids=lambda page: page.stem)
def test_a_guides_yaml_is_a_part_of_a_manifest(page: Path) -> None:
    for text in blocks(page, "yaml"):
        assert manifest_problems({**MANIFEST, **yaml.safe_load(text)}) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_every_command_is_known(page: Path) -> None:
    for line in commands(page):
        program, *words = shlex.split(re.sub(r"[\[\]]|[|;].*", "", line))
        known: Any = typer.main.get_command(author_app if program == "penstock-connector" else operator_app)
        while words and words[0] in getattr(known, "commands", {}):
            known = known.commands[words.pop(0)]
        assert not hasattr(known, "commands") or not words, line
        options = {option for param in known.params for option in param.opts}
        assert {word.split("=")[0] for word in words if word.startswith("-") and len(word) > 1} <= options, line


class Oauth:
    """A source whose refresh tokens are good once."""

    def __init__(self, server: HTTPServer) -> None:
        self.good = 1
        self.expires_in = 0.001  # each request finds its token expired
        self.kept: list[tuple[str, str]] = []
        server.expect_request("/oauth/token", method="POST").respond_with_handler(self.token)
        server.expect_request("/me").respond_with_handler(self.me)

    def token(self, request: Request) -> Response:
        if request.form["refresh_token"] != f"refresh-{self.good}":
            return Response(status=400)
        self.good += 1
        issued = {
            "access_token": f"access-{self.good}",
            "refresh_token": f"refresh-{self.good}",
            "expires_in": self.expires_in,
        }
        return Response(json.dumps(issued))

    def me(self, request: Request) -> Response:
        known = [("refresh_token", f"refresh-{self.good}")]
        right = request.headers["Authorization"] == f"Bearer access-{self.good}" and self.kept[-1:] == known
        return Response("{}", status=200 if right else 401)  # a token whose successor is not kept is refused


def tickets(server: HTTPServer, source: Oauth, token: str) -> Any:
    secret = {"client_id": "c", "client_secret": "s", "refresh_token": token}
    config = {"baseUrl": server.url_for("").rstrip("/")}
    connector = build(without_its_own(guide("authentication").Tickets), config, secret)
    page = yaml.safe_load(blocks(DOCS / "authors" / "authentication.md", "yaml")[0])
    manifest = Manifest.model_validate({**MANIFEST, **page})

    def share(name: str) -> LocalCredential:
        return LocalCredential(secret[name], lambda value: source.kept.append((name, value)))

    connector.authentication = auth_for(manifest, config, secret, share=share)
    return connector


def test_authentication_keeps_a_rotated_token_before_it_is_used(httpserver: HTTPServer) -> None:
    source = Oauth(httpserver)
    connector = tickets(httpserver, source, "refresh-1")
    connector.authenticate()
    assert source.kept == [("refresh_token", "refresh-2")]
    assert connector.get("me") == {}
    assert source.kept[-1] == ("refresh_token", "refresh-3")


def test_authentication_says_what_to_do_about_a_spent_token(httpserver: HTTPServer) -> None:
    connector = tickets(httpserver, Oauth(httpserver), "refresh-0")
    with pytest.raises(AuthenticationError, match="put the new refresh_token into the Secret"):
        connector.authenticate()


FIELDS = [
    {"name": "key", "kind": "whole number", "mandatory": True, "personal": False},
    {"name": "changed", "kind": "moment", "mandatory": True, "personal": False},
    {"name": "holder", "kind": "text", "mandatory": False, "personal": True},
    {"name": "contact", "kind": "text", "mandatory": False, "personal": False},
    {"name": "shape", "kind": "polygon", "mandatory": False, "personal": False},
]


def test_discovery_follows_ids_and_refuses_a_cursor_that_may_be_missing() -> None:
    table = {"id": "t1", "label": "People", "fields": FIELDS, "sample": [{"contact": "ada@example.org"}] * 5}
    loose = {**table, "id": "t0", "fields": [{**field, "mandatory": False} for field in FIELDS]}
    connector = build(without_its_own(guide("discovery").Crm, tables=lambda _: [table, loose]), {}, {})
    bare, people = connector.discover()
    assert (people.identity, people.cursor_field, people.modes) == ("t1", "changed", ("full", "incremental"))
    assert properties_of(people.schema)["holder"] == {"type": ["string", "null"]}
    assert people.pii == ("holder",)
    assert people.pii_suggested["contact"] == "email"
    assert (bare.identity, bare.cursor_field, bare.modes) == ("t0", None, ("full",))


FTP_ERROR: type[Exception] = guide("errors").error_perm


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (FTP_ERROR("530 Login incorrect"), AuthenticationError),
        (FTP_ERROR("550 No such file"), FTP_ERROR),
        (ConnectionRefusedError(), TransientError),
        (TimeoutError(), TransientError),
    ],
)
def test_errors_have_the_class_that_says_what_to_do(raised: Exception, error: type[Exception]) -> None:
    with pytest.raises(error), guide("errors").source_errors("files.example.com"):
        raise raised


ITEMS = Stream(name="items", schema={"type": "object"}, primary_key=("id",))


def test_estimating_counts_what_the_read_would_get() -> None:
    asked: list[Any] = []

    def count(*given: Any) -> int:
        asked.append(given[2])
        return 450

    cls = without_its_own(guide("estimating").Orders, count=count)
    connector = build(cls, {}, {})
    expected = Estimate(records=450, bytes=405_000, api_calls=4)
    assert connector.estimate(ITEMS, None, {"moment": "2026-02-01"}) == expected
    assert connector.estimate(ITEMS, datetime(2026, 1, 1, tzinfo=UTC), None) == expected
    assert connector.estimate(ITEMS, None, None) == expected
    assert asked == ["2026-02-01", "2026-01-01T00:00:00+00:00", None]


def test_rejected_rows_are_put_aside_with_a_message_that_holds_no_value() -> None:
    text = "id,price\n1,10\n2\n3,30\n"
    connector = build(without_its_own(guide("rejected").Prices, open=lambda *_: io.StringIO(text)), {}, {})
    (batch,) = connector.read(ITEMS, None, None)
    records, sink = cast("list[dict[str, str]]", batch.records), cast("Any", connector.sink)
    assert [row["id"] for row in records] == ["1", "3"]
    assert sink.rejected == [(["2"], "line 3: 1 fields, and the header has 2")]


class Counter(Connector[dict, dict]):  # type: ignore[type-arg]
    """Reads ten numbers; `ahead` is by how much each promise is too far."""

    ahead = 0

    def authenticate(self) -> None: ...

    def discover(self) -> list[Stream]:
        return [ITEMS]

    def read(self, stream: Stream, since: datetime | None, cursor: Any) -> Any:
        for start in range(cursor or 0, 10, 2):
            yield Batch([{"id": start}, {"id": start + 1}], cursor=start + 2 + self.ahead)


def test_testing_finds_a_cursor_that_is_wrong() -> None:
    holds = guide("testing").assert_cursors_resume
    holds(Counter({}, {}), ITEMS, "id")
    broken = Counter({}, {})
    broken.ahead = 1
    with pytest.raises(AssertionError, match="from 3"):
        holds(broken, ITEMS, "id")


def test_packaging_reads_cursors_of_both_forms() -> None:
    position = guide("packaging").parse_cursor
    assert position("2026-01-01") == ("2026-01-01", frozenset())
    assert position({"moment": "2026-01-01", "seen": [1]}) == ("2026-01-01", frozenset([1]))


def test_performance_gives_the_same_records_in_each_form() -> None:
    module: ModuleType = guide("performance")
    forms = [module.as_dictionaries, module.as_json, module.as_json_lines, module.as_arrow]
    assert [list(rows_of(batch.records)) for form in forms for batch in form()] == [module.ROWS] * len(forms)


def test_logs_are_told_by_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        guide("logs").tell(3, 1)
    assert caplog.messages == ["3 pages read", "1 accounts are closed and were left out"]


STATUS: dict[str, Any] = {
    "maintenance": False,
    "ends_in": 900,
    "replica_lag": 3,
    "plan": "paid",
    "deprecations": [
        {"entity": "items", "field": "colour", "date": "2027-01-01", "instead": "shade"},
        {"entity": "elsewhere", "field": "x", "date": "2027-01-01", "instead": "y"},
    ],
}


def hooked(**changed: Any) -> Any:
    return build(without_its_own(guide("hooks").Orders, status=lambda _: {**STATUS, **changed}), {}, {})


def test_hooks_say_that_a_source_cannot_serve_a_run() -> None:
    hooked().health()
    with pytest.raises(TransientError) as told:
        hooked(maintenance=True).health()
    assert told.value.retry_after == 900
    with pytest.raises(TransientError, match="700 s behind"):
        hooked(replica_lag=700).health()
    with pytest.raises(ConfigError):
        hooked(plan="free").health()


def test_hooks_announce_what_will_go_of_what_is_offered() -> None:
    (said,) = hooked().drift([ITEMS])
    assert (said.stream, said.field, said.message) == ("items", "colour", "colour ends on 2027-01-01: use shade")


def test_states_of_a_singer_tap_are_a_document_to_import() -> None:
    states = guide("from-airbyte-and-singer").states
    singer = {"bookmarks": {"orders": {"replication_key_value": "2026-01-05"}, "people": {}}}
    text = states(singer, "orders-rest", lambda bookmark: {"moment": bookmark["replication_key_value"], "seen": []})
    document = StateDocument.model_validate_json(text)
    assert document.connector == "orders-rest"
    assert [(stream.name, stream.cursor) for stream in document.streams] == [
        ("orders", {"moment": "2026-01-05", "seen": []})
    ]


def test_partitions_together_are_the_stream() -> None:
    def pages(_self: Any, start: int | None, end: int | None, after: int | None) -> Any:
        numbers = range(start or 0, 100 if end is None else end)
        left = [{"id": number} for number in numbers if after is None or number > after]
        yield from (left[at : at + 7] for at in range(0, len(left), 7))

    orders = without_its_own(guide("partitions").Orders, middle_id=lambda _: 40, pages=pages)
    connector: Connector[Any, Any] = build(orders, {}, {})
    (stream,) = connector.discover()
    parts = connector.partitions(stream, None, None, ())

    def read(part: Any, cursor: Any = None) -> list[Any]:
        batches = connector.read(replace(stream, partition=part), None, cursor)
        return [row["id"] for batch in batches for row in rows_of(batch.records)]

    assert [part.id for part in parts] == ["below-40", "from-40"]
    assert [*read(parts[0]), *read(parts[1])] == read(None) == list(range(100))
    assert read(parts[1], 95) == [96, 97, 98, 99]
    assert connector.partitions(stream, None, None, parts) == parts, "ranges of the run before stay"
    assert connector.partitions(stream, None, 40, ()) == (), "a read in one goes on in one"


def test_http_reads_pages_through_faults() -> None:
    module = guide("http")
    rows = [row for batch in module.read_all_tickets() for row in rows_of(batch.records)]
    assert [row["id"] for row in rows] == list(range(50))


def test_http_declares_errors_inside_a_response() -> None:
    module = guide("http")
    bodies: list[dict[str, Any]] = [{"ok": False, "error": "team_gone"}, {"ok": False, "error": "invalid_auth"}]
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=bodies.pop()))
    client = module.Client("https://api.test", errors=module.SLACK_LIKE, transport=transport)
    with pytest.raises(AuthenticationError, match="the Secret's key 'token'"):
        client.get("items")
    with pytest.raises(SourceContractError, match="the source says: team_gone"):
        client.get("items")
    assert module.patient_client("https://api.test").limits.longest_wait == 1800


def test_http_reads_children_details_exports_jobs_and_connections() -> None:
    module = guide("http")
    tickets: list[JsonObject] = [{"id": 1}, {"id": 2}]
    comments = [Collection(f"tickets/{ticket}/comments", tied_rows(3), "page") for ticket in (1, 2)]
    connection: JsonObject = {"nodes": [{"id": 9}], "pageInfo": {"hasNextPage": False, "endCursor": None}}
    answers: dict[str, JsonObject] = {
        "tickets/1": {"id": 1},
        "tickets/2": {"id": 2},
        "exports": {"id": "e"},
        "exports/e": {"status": "done", "download_url": "/files/e.json"},
        "files/e.json": {"data": {"items": [{"id": 5}]}},
        "graphql": {"data": {"repository": {"issues": connection}}},
    }

    def answering(answer: Answer) -> Route:
        return lambda _request: answer

    routes = {path: answering(Answer.of_json(body)) for path, body in answers.items()}
    routes["files/e.csv"] = answering(Answer(200, b"id\n6\n"))
    with FakeSource(Collection("tickets", tickets, "page"), *comments, routes=routes) as source:
        http = module.Client(source.url)
        batches = list(module.read_comments(http, None, None))
        read = [(row["ticket_id"], row["id"]) for batch in batches for row in rows_of(batch.records)]
        assert read == [(ticket, number) for ticket in (1, 2) for number in range(3)]
        assert [list(batch.records) for batch in module.read_comments(http, None, batches[-1].cursor)] == [[], []]
        assert [row["id"] for row in module.read_details(http, [2, 1])] == [2, 1]
        jobs = list(module.read_job(http, None))
        assert [row for batch in jobs for row in rows_of(batch.records)] == [{"id": 5}]
        assert [list(batch.records) for batch in module.read_export(http, "files/e.csv")] == [[{"id": "6"}]]
        assert [rows_of(batch.records) for batch in module.read_issues(http, "o")] == [[{"id": 9}]]
