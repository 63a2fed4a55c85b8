"""A connector is stateless: a write to the local file system ends the attempt with a reason of its own."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from penstock_sdk.errors import AttemptEnded, LocalPersistenceError

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ALLOWED = ("/dev/", "/proc/self/")


class WriteGuard:
    """What the connector's code tried so far: the first violation is kept, whoever catches the exception."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = allowed
        self._violation: LocalPersistenceError | None = None

    def check(self) -> None:
        """Raise the violation, if there was one."""
        if self._violation:
            raise self._violation

    def check_open(self, path: Any, flags: Any) -> None:
        """Refuse an open for writing beside the temporary directory."""
        if not isinstance(flags, int) or not flags & WRITING or isinstance(path, int):
            return
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a hook must not touch the file system
        if not (name + os.sep).startswith(self._allowed):  # with the separator: O_TMPFILE opens the directory itself
            self.refuse(name)

    def refuse(self, path: object) -> None:
        """Keep the violation, and raise it."""
        message = f"the connector tried to write {path}; a connector is stateless: keep state with cursors, scratch in the temp dir"
        self._violation = self._violation or LocalPersistenceError(message)
        raise self._violation


class _AuditHook:
    """One audit hook for the process, as hooks cannot be removed; it acts only while connector code runs."""

    guard: WriteGuard | None = None
    installed = False

    @classmethod
    def on_event(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if cls.guard and event == "open":
            cls.guard.check_open(arguments[0], arguments[2])


@contextmanager
def no_local_writes() -> Iterator[WriteGuard]:
    """Raise LocalPersistenceError when the code inside opens a file for writing outside the temporary directory.

    It is raised where the file is opened, at `check`, and in place of any other error that leaves the block, so that
    an `except Exception` around the write cannot hide it.
    """
    # Looked up now: the first gettempdir() opens a file under a lock that the hook would wait for.
    scratch = tempfile.gettempdir()
    guard = WriteGuard((*ALLOWED, os.path.abspath(scratch) + os.sep, os.path.realpath(scratch) + os.sep))  # noqa: PTH100
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a lazy import is not the connector's writing
    if not _AuditHook.installed:
        sys.addaudithook(_AuditHook.on_event)
        _AuditHook.installed = True
    _AuditHook.guard = guard
    try:
        yield guard
        guard.check()
    except AttemptEnded:
        raise
    except BaseException as error:
        guard.check()
        if isinstance(error, OSError) and error.errno == errno.EROFS:
            guard.refuse(error.filename)
        raise
    finally:
        _AuditHook.guard = None
        sys.dont_write_bytecode = bytecode
