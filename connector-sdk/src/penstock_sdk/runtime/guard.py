"""A connector is stateless: a write to the local file system ends the attempt with a reason of its own."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from penstock_sdk.errors import LocalPersistenceError

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ALLOWED = ("/dev/", "/proc/self/")


class _Guard:
    """One audit hook for the process, as hooks cannot be removed; it acts only while connector code runs."""

    active = False
    installed = False
    allowed: tuple[str, ...] = ALLOWED

    @classmethod
    def hook(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if not cls.active or event != "open":
            return
        path, _mode, flags = arguments
        if not isinstance(flags, int) or not flags & WRITING or isinstance(path, int):
            return
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a hook must not touch the file system
        if not (name + os.sep).startswith(cls.allowed):  # with the separator: O_TMPFILE opens the directory itself
            raise _violation(name)


def _violation(path: object) -> LocalPersistenceError:
    message = f"the connector tried to write {path}; a connector is stateless: keep state with cursors, scratch in the temp dir"
    return LocalPersistenceError(message)


@contextmanager
def no_local_writes() -> Iterator[None]:
    """Raise LocalPersistenceError when the code inside opens a file for writing outside the temporary directory."""
    # Looked up now: the first gettempdir() opens a file under a lock that the hook would wait for.
    scratch = tempfile.gettempdir()
    _Guard.allowed = (*ALLOWED, os.path.abspath(scratch) + os.sep, os.path.realpath(scratch) + os.sep)  # noqa: PTH100
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a lazy import is not the connector's writing
    if not _Guard.installed:
        sys.addaudithook(_Guard.hook)
        _Guard.installed = True
    _Guard.active = True
    try:
        yield
    except OSError as error:
        if error.errno == errno.EROFS:
            raise _violation(error.filename) from None
        raise
    finally:
        _Guard.active = False
        sys.dont_write_bytecode = bytecode
