"""What users and machines do wrong: each is named with its field and remedy, nothing is lost, and nobody else waits.

Here is what `penstock up` has to say to it; what the API server refuses is in tests/cluster, and what the SDK alone can
tell in tests/unit/sdk (a record that cannot be encoded, a full temporary directory).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from penstock_operator.embedded.platform import DataDirectory, platform
from penstock_operator.embedded.postgres import EmbeddedPostgres
from penstock_operator.embedded.runner import ProgressReporter, RunResult, run_once
from penstock_operator.embedded.s3 import EmbeddedS3
from penstock_operator.settings import S3Settings
from penstock_sdk.protocol import Limits
from psycopg.conninfo import conninfo_to_dict

from tests.chaos.proxies import Proxy, S3Proxy
from tests.fakes.progress import FakeProgressReporter
from tests.integration.test_up import FAKER, PENSTOCK, POSTGRES, User, numbers
from tests.patience import PATIENCE

PEOPLE = [{"name": "people", "mode": "incremental"}]


@pytest.fixture
def user(folder: Path, tmp_path: Path, backends_environment: dict[str, str]) -> User:
    return User(folder, tmp_path, backends_environment)


def wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def going(user: User) -> Iterator[subprocess.Popen[str]]:
    """A `penstock up --once` under way, ended whatever happens."""
    command = [*PENSTOCK, "up", str(user.folder), "--data-dir", str(user.data), "--once", "--output", "json"]
    with subprocess.Popen(
        command, env=user.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def source(user: User, url: str, **config: Any) -> dict[str, Any]:
    """A connection's spec for the database, with its Secret beside it."""
    found = conninfo_to_dict(url)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "team"}}
    user.write("secret.yaml", [{**secret, "stringData": {"username": "penstock", "password": found["password"]}}])
    where = {"host": found["host"], "port": int(str(found["port"])), "database": found["dbname"], **config}
    return {"connector": POSTGRES, "config": where, "secretRef": {"name": "db"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [("DROP TABLE b", 'relation "public.b" does not exist'), ("ALTER TABLE b DROP COLUMN note", 'column "note"')],
)
def test_a_table_or_column_that_goes_mid_run_is_named(user: User, source_url: str, change: str, words: str) -> None:
    with psycopg.connect(source_url, autocommit=True) as admin:
        admin.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 10)")
        admin.execute("CREATE TABLE b (id int PRIMARY KEY, note text)")
        streams = [{"name": "public.a"}, {"name": "public.b"}]
        user.connection("tables", **source(user, source_url, schemas=["public"]), streams=streams)
        user.connection("good", connector=FAKER, config={"records": 10})
        with psycopg.connect(source_url) as holder:
            holder.execute("LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
            done = dict[str, Any]()
            running = threading.Thread(target=lambda: done.update(result=user.up()))
            running.start()
            waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'a'::regclass"
            wait_for(lambda: admin.execute(waiting).fetchone())
            admin.execute(change.encode())
        running.join()
    code, results, errors = done["result"]
    assert code == 1, errors
    assert results["good"]["phase"] == "succeeded"
    error = results["tables"]["error"]
    assert error["class"] == "SourceContractError"
    assert error["message"].startswith("stream 'public.b': ")
    assert words in error["message"]
    assert "it was changed after discovery" in error["message"]
    assert results["tables"]["records"] == 10, "what was read before it is kept"


def test_a_source_that_nobody_answers_for_is_named_with_its_address(user: User) -> None:
    config = {"host": "127.0.0.1", "port": 1, "database": "shop"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "team"}}
    user.write("secret.yaml", [{**secret, "stringData": {"password": "x"}}])
    spec = {"connector": POSTGRES, "config": config, "secretRef": {"name": "db"}, "retry": {"limit": 0}}
    user.connection("orders", **spec)
    user.connection("good", connector=FAKER, config={"records": 10})
    _, results, _ = user.up()
    assert results["good"]["phase"] == "succeeded"
    assert results["orders"]["error"]["class"] == "TransientError"
    assert "postgres@127.0.0.1:1/shop: the database cannot be reached" in results["orders"]["error"]["message"]


def test_a_name_that_is_too_long_is_refused_and_nobody_else(user: User) -> None:
    user.connection("x" * 64, connector=FAKER)
    user.connection("good", connector=FAKER, config={"records": 10})
    _, results, _ = user.up()
    assert results["good"]["phase"] == "succeeded"
    assert "metadata.name must be no longer than 63 characters" in results["x" * 64]["error"]["message"]


def test_a_name_that_is_there_twice_is_told_with_both_files(user: User) -> None:
    user.connection("orders", connector=FAKER)
    (user.folder / "again.yaml").write_text((user.folder / "orders.yaml").read_text())
    done = user.call("up", str(user.folder), "--data-dir", str(user.data), "--once")
    assert done.returncode == 2
    assert "TenantConnection/team/orders is in" in done.stderr
    assert "again.yaml" in done.stderr
    assert "orders.yaml" in done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"versoin": "1"}, 'unknown field "spec.manifest.versoin"'),
        ({"version": "one"}, "spec.manifest.version: Invalid value"),
        ({"configSchema": {"type": "objct"}}, "spec.manifest.configSchema.type: Invalid value: not a JSON Schema"),
    ],
)
def test_an_invalid_manifest_is_refused_by_validate_and_up_with_the_same_words(
    user: User, change: dict[str, Any], words: str
) -> None:
    path = user.folder / "faker-generate.yaml"
    (document,) = yaml.safe_load_all(path.read_text())
    document["spec"]["manifest"].update(change)
    path.write_text(yaml.safe_dump(document))
    user.connection("orders", connector=FAKER)
    said = user.call("validate", str(path))
    assert said.returncode == 1
    problems = [line.removeprefix(f"{path}: ") for line in said.stderr.splitlines()]
    assert any(words in problem for problem in problems)
    _, results, errors = user.up()
    assert all(problem in errors for problem in problems)
    assert "there is no connector faker/generate" in results["orders"]["error"]["message"]


def test_the_bucket_away_for_a_while_is_waited_for(user: User, s3_server: S3Settings) -> None:
    user.connection("fake", connector=FAKER, config={"records": 2000}, streams=PEOPLE)
    with S3Proxy([port_of(s3_server.endpoint)]) as proxy:
        user.environment["PENSTOCK_S3_ENDPOINT"] = f"http://127.0.0.1:{proxy.port}"
        proxy.down()
        with going(user) as running:
            wait_for(lambda: proxy.counted["refused"] >= 2)
            proxy.up()
            running.communicate(timeout=PATIENCE)
        assert running.returncode == 0
        listed = user.call("runs", "list", "--data-dir", str(user.data)).stdout
    assert "succeeded" in listed


def port_of(endpoint: str | None) -> int:
    return int((endpoint or "").rsplit(":", 1)[1])


@contextlib.contextmanager
def environment(monkeypatch: pytest.MonkeyPatch, user: User) -> Iterator[None]:
    with monkeypatch.context() as patched:
        for name, value in user.environment.items():
            patched.setenv(name, value)
        yield


async def up_with(user: User, limits: Limits, report: ProgressReporter) -> RunResult:
    async with platform(user.folder, DataDirectory(user.data), limits) as running:
        (result,) = await run_once(running, report)
        return result


def test_the_bucket_away_for_longer_than_patience_fails_the_run_and_loses_nothing(
    user: User, s3_server: S3Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.connection("fake", connector=FAKER, config={"records": 2000}, streams=PEOPLE, retry={"limit": 0})
    with S3Proxy([port_of(s3_server.endpoint)]) as proxy:
        user.environment["PENSTOCK_S3_ENDPOINT"] = f"http://127.0.0.1:{proxy.port}"
        proxy.down()
        with environment(monkeypatch, user):
            failed = asyncio.run(up_with(user, Limits(patience_seconds=1), FakeProgressReporter()))
        proxy.up()
        _, results, errors = user.up()
    assert failed.error == {"class": "TransientError", "message": "the bucket did not answer for 1 s"}
    assert failed.objects == []
    assert numbers(user.records(results["fake"])) == list(range(2000)), errors


def test_a_registry_that_restarts_mid_run_is_waited_for(user: User, tmp_path_factory: pytest.TempPathFactory) -> None:
    config = {"records": 4000, "batchSize": 100, "delaySeconds": 0.1}
    user.connection("fake", connector=FAKER, config=config, streams=PEOPLE)
    with EmbeddedPostgres(tmp_path_factory.mktemp("registry") / "server") as server:
        user.environment["PENSTOCK_DATABASE_URL"] = server.url
        with going(user) as running:
            assert running.stderr is not None
            for line in running.stderr:
                if "running" in line:
                    break
            server.stop()
            server.start()
            rest, errors = running.communicate(timeout=PATIENCE)
        assert running.returncode == 0, errors
        (result,) = yaml.safe_load(rest)["connections"]
        assert numbers(user.records(result)) == list(range(4000))


def test_a_full_disk_under_the_bucket_is_waited_for(user: User, tmp_path: Path) -> None:
    """The kernel refuses the server's writes past 4 KiB a file, as a full disk would, until it is told otherwise."""
    user.connection("fake", connector=FAKER, config={"records": 2000}, streams=PEOPLE)
    with EmbeddedS3(tmp_path / "bucket") as server, Proxy([port_of(server.settings.endpoint)]) as proxy:
        settings = dataclasses.replace(server.settings, endpoint=f"http://127.0.0.1:{proxy.port}")
        user.environment.update(
            PENSTOCK_S3_ENDPOINT=settings.endpoint or "",
            PENSTOCK_S3_BUCKET=settings.bucket,
            AWS_ACCESS_KEY_ID=settings.access_key or "",
            AWS_SECRET_ACCESS_KEY=settings.secret_key or "",
        )
        unlimited = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (4096, unlimited[1]))
        with going(user) as running:
            log = user.data / "runs" / "logs"
            wait_for(lambda: "reading people" in "".join(path.read_text() for path in log.glob("*.log")))
            wait_for(server.log_tail)
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, unlimited)
            rest, errors = running.communicate(timeout=PATIENCE)
        assert running.returncode == 0, errors
        (result,) = yaml.safe_load(rest)["connections"]
        assert numbers(user.records(result)) == list(range(2000))


FULL_DISK = """
    CREATE SEQUENCE penstock.refused;
    CREATE FUNCTION penstock.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM nextval('penstock.refused');
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON penstock.bronze_objects EXECUTE FUNCTION penstock.refuse();
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON penstock.run_attempts EXECUTE FUNCTION penstock.refuse();
"""


def test_a_full_disk_under_the_registry_is_waited_for(user: User, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Postgres refuses what makes its tables grow, with the error that it has for a disk without room."""
    config = {"records": 4000, "batchSize": 100, "delaySeconds": 0.1}
    user.connection("fake", connector=FAKER, config=config, streams=PEOPLE)
    with EmbeddedPostgres(tmp_path_factory.mktemp("registry") / "server") as server:
        user.environment["PENSTOCK_DATABASE_URL"] = server.url
        with going(user) as running, psycopg.connect(server.url, autocommit=True) as registry:
            wait_for(lambda: _rows(registry, "run_attempts WHERE started_at IS NOT NULL"))
            registry.execute(FULL_DISK)
            wait_for(
                lambda: (
                    _value(registry, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM penstock.refused") > 5
                )
            )
            registry.execute("DROP FUNCTION penstock.refuse CASCADE")
            rest, errors = running.communicate(timeout=PATIENCE)
        assert running.returncode == 0, errors
        (result,) = yaml.safe_load(rest)["connections"]
        assert numbers(user.records(result)) == list(range(4000))
        assert result["attempt"] == 1


def _rows(registry: psycopg.Connection, where: str) -> int:
    return _value(registry, f"SELECT count(*) FROM penstock.{where}")


def _value(registry: psycopg.Connection, sql: str) -> int:
    with contextlib.suppress(psycopg.errors.UndefinedTable):
        row = registry.execute(sql.encode()).fetchone()
        return int(row[0]) if row else 0
    return 0
