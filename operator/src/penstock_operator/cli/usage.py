"""A wrong command line is answered in one line that suggests the nearest word, with exit code 2."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import typer

from penstock_operator.cli.output import printable, say
from penstock_operator.resources.spelling import nearest_word

USAGE_ERRORS: tuple[type[Exception], ...] = typer.BadParameter.__mro__[1:3]
"""What typer raises for a wrong command line: its UsageError and ClickException, wherever it keeps them."""
UNKNOWN = re.compile(r"no such (?P<what>option|command):? '?(?P<word>.*?)'?(?:[?.'(]|$)")
CHOICES = re.compile(r"'(?P<word>[^']*)' is not one of (?P<known>.*)")


def say_usage(error: Any) -> None:
    """Say what is wrong with a command line; a group that was given no command says its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        say(str(error.format_message()))
    else:
        say(f"error: {usage_line(error)}")


def usage_line(error: Any) -> str:
    """Return what is wrong with a command line, and the nearest word or the help's command."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "penstock"
    message = _message(error)
    found = UNKNOWN.match(message)
    if found and context is not None:
        word = printable(getattr(error, "option_name", None) or found["word"].strip())
        message = f"no such {found['what']}: {word}"
        near = nearest_word(word, _words(context, found["what"]))
        if near:
            return f"{message}; did you mean {near}? `{command} --help` lists all"
    if choices := CHOICES.search(message):
        near = nearest_word(choices["word"], re.findall("'(.*?)'", choices["known"]))
        message = f"{message.rstrip('.')}; did you mean {near}?" if near else message
    return f"{message.rstrip('.')}; see `{command} --help`"


def _message(error: Any) -> str:
    text = printable(" ".join(str(error.format_message()).replace("Value error, ", "").split()))
    return text[:1].lower() + text[1:]


def _words(context: Any, what: str) -> Iterable[str]:
    """Return the options or commands that the command at hand knows."""
    if what == "command":
        return list(context.command.commands)
    return [
        "--help",
        *(option for parameter in context.command.params for option in (*parameter.opts, *parameter.secondary_opts)),
    ]
