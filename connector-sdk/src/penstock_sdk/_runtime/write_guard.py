"""Ends the attempt with LocalPersistenceError if the connector writes to the local file system."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from penstock_sdk._runtime.audit_events import audited
from penstock_sdk.errors import AttemptEnded, LocalPersistenceError

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ALLOWED = ("/dev/", "/proc/self/")


class WriteGuard:
    """Remembers the first write of the connector's code, even if the connector catches the exception."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = allowed
        self._violation: LocalPersistenceError | None = None

    def check(self) -> None:
        """Raise the first violation, if there was one."""
        if self._violation:
            raise self._violation

    def check_open(self, path: Any, flags: Any) -> None:
        """Refuse to open a file for writing outside the temporary directory."""
        if not isinstance(flags, int) or not flags & WRITING or isinstance(path, int):
            return
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a hook must not touch the file system
        if not (name + os.sep).startswith(self._allowed):  # with the separator, as O_TMPFILE opens the directory itself
            self.refuse(name)

    def refuse(self, path: object) -> None:
        """Record the violation, and raise it."""
        message = f"the connector tried to write {path}; a connector is stateless: keep state in cursors, and temporary files in the temporary directory"
        self._violation = self._violation or LocalPersistenceError(message)
        raise self._violation


@contextmanager
def no_local_writes() -> Iterator[WriteGuard]:
    """Raise LocalPersistenceError when the code inside opens a file for writing outside the temporary directory.

    The error is raised where the file is opened, at `check`, and instead of any other error that leaves the block, so an
    `except Exception` around the write cannot hide it.
    """
    # Called before the hook acts: the first gettempdir() opens a file under a lock for which the hook would wait.
    scratch = tempfile.gettempdir()
    guard = WriteGuard((*ALLOWED, os.path.abspath(scratch) + os.sep, os.path.realpath(scratch) + os.sep))  # noqa: PTH100
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # so that a lazy import writes no bytecode
    try:
        with audited(("open", lambda arguments: guard.check_open(arguments[0], arguments[2]))):
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
        sys.dont_write_bytecode = bytecode
