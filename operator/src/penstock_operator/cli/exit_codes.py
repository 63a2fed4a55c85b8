"""Exit codes of the commands, and the error that ends a command with a message."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every command; a command that a signal ends has 128 and the signal's number."""

    ok = 0
    """The command did what it was asked."""
    problem = 1
    """The command ran and found something wrong: a run failed, a file is invalid, an object cannot be read."""
    usage = 2
    """The command cannot be carried out as it was given; the message says what to change."""
    defect = 70
    """The command met what it does not know: a defect of Penstock."""


class CommandError(Exception):
    """The command cannot be carried out; the message says what to do."""
