"""How a command ends after an error: with one line and an exit code, and without a traceback."""

from __future__ import annotations

import os
import re
import traceback
import unicodedata
from collections.abc import Iterable
from typing import Any

import typer

from penstock_sdk._spelling import nearest_word
from penstock_sdk.errors import describe_error

USAGE_ERRORS: tuple[type[Exception], ...] = typer.BadParameter.__mro__[1:3]
"""The errors of typer for a wrong command line: its UsageError and ClickException, wherever it defines them."""
USAGE, DEFECT = 2, 1
LONGEST_LINE = 2000
TRACEBACK_VARIABLE = "PENSTOCK_TRACEBACK"
UNKNOWN = re.compile(r"no such (?P<what>option|command):? '?(?P<word>.*?)'?(?:[?.'(]|$)", re.IGNORECASE)
UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: object) -> str:
    """Return text in one line, without control characters and other characters that a terminal would interpret."""
    line = " ".join(str(text).split())[:LONGEST_LINE]
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in UNPRINTABLE else character
        for character in line
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the suggestion to add to a message about an unknown word, or nothing."""
    near = nearest_word(word, known)
    return f"; did you mean {near!r}?" if near else ""


def usage_line(error: Any) -> str:
    """Return the problem of a command line, with a suggestion or the help command."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "penstock-connector"
    message = printable(error.format_message())
    if not message:  # no command was given, and the help was printed
        return ""
    found = UNKNOWN.match(message)
    if found and context is not None:
        word = printable(getattr(error, "option_name", None) or found["word"].strip())
        near = nearest_word(word, _words(context, found["what"].lower()))
        suggested = f"; did you mean {near}?" if near else ";"
        return f"no such {found['what'].lower()}: {word}{suggested} see `{command} --help`"
    return f"{message[:1].lower()}{message[1:].rstrip('.')}; see `{command} --help`"


def _words(context: Any, what: str) -> Iterable[str]:
    if what == "command":
        return list(context.command.commands)
    return [
        "--help",
        *(option for parameter in context.command.params for option in (*parameter.opts, *parameter.secondary_opts)),
    ]


def system_line(error: OSError) -> str:
    """Return the file and the reason of a system error."""
    place = f"{error.filename}: " if error.filename else ""
    return printable(f"{place}{error.strerror or type(error).__name__}")


def defect_line(error: BaseException) -> str:
    """Return where an unexpected error was raised, or the whole traceback if the environment variable is set."""
    if os.environ.get(TRACEBACK_VARIABLE):
        return "".join(traceback.format_exception(error)).rstrip()
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    own = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), None)
    called = f", called at {own.filename}:{own.lineno}" if own and own is not frames[-1] else ""
    return printable(f"{describe_error(error)}{place}{called}; set {TRACEBACK_VARIABLE}=1 to see the whole traceback")
