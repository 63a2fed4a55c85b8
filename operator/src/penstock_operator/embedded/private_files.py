"""Small private files of the data directory: secrets, and the record of the process that owns it."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from pathlib import Path

from penstock_operator.embedded import EmbeddedError


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    scratch.replace(path)


def kept_secret(path: Path) -> str:
    """Return the secret in the file; the first call makes it."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text()


def free_port(host: str) -> int:
    """Return a port that no process listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def start_time(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks; None if it has ended. A reused pid has another start time."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def lock(directory: Path) -> int:
    """Hold a data directory until the descriptor is closed; the kernel closes it when the platform is killed.

    A server that still runs in a directory that can be locked is an orphan of a killed platform.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        message = f"{directory} is in use by another platform: stop that one, or use another directory"
        raise EmbeddedError(message) from error
    return descriptor


def recorded_process(path: Path) -> tuple[int, str] | None:
    """Return the pid and start time in a record, if that process still lives; a torn record names none."""
    try:
        pid, started = path.read_text().split()
    except (OSError, ValueError):
        return None
    return (int(pid), started) if start_time(int(pid)) == started else None
