"""Paths as people give them on a command line. An empty word, which an unset variable leaves, names no path."""

from __future__ import annotations

import os
from pathlib import Path

import typer


def path_word(word: str) -> Path:
    """Return the path that a word names. Raises typer's BadParameter for an empty word and one with a NUL."""
    if not str(word):
        raise typer.BadParameter("the path is empty; give . for the current folder")
    if "\0" in str(word):
        raise typer.BadParameter("a path cannot contain a NUL character")
    return Path(word)


def existing_path(word: str) -> Path:
    """Return the path of a file or folder that is there."""
    path = path_word(word)
    if not os.path.exists(path):  # noqa: PTH110 - a Path raises for a name that is too long
        raise typer.BadParameter(f"path '{path}' does not exist")
    return path


def existing_folder(word: str) -> Path:
    """Return the path of a folder that is there."""
    path = existing_path(word)
    if not path.is_dir():
        raise typer.BadParameter(f"'{path}' is a file; give a folder")
    return path
