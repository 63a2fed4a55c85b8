"""The words that the glossary replaced, and the word to write instead of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Flag, auto


class Where(Flag):
    """The kinds of names in which a word is refused."""

    MODULE = auto()
    """Names of modules and packages, as a whole."""
    NAME = auto()
    """Parts of the names of modules, classes and functions: `crew` in `_crew_size`, `Crew` in `CrewMember`."""
    TEXT = auto()
    """Docstrings, messages and other string constants."""


ANYWHERE = Where.NAME | Where.TEXT


@dataclass(frozen=True, slots=True)
class OldWord:
    """A word that the code no longer uses."""

    word: str
    instead: str
    where: Where = Where.NAME

    def is_in_module(self, module: str) -> bool:
        """Return True if the name of a module or package has this word."""
        whole = Where.MODULE in self.where and module == self.word
        return whole or self.is_in_name(module)

    def is_in_name(self, name: str) -> bool:
        """Return True if the name of a class or function has this word as one of its parts."""
        return Where.NAME in self.where and any(_same(part, self.word) for part in parts(name))

    def is_in_text(self, text: str) -> bool:
        """Return True if a docstring or message has this word."""
        if Where.TEXT not in self.where or self.word not in text.lower():
            return False
        return any(_same(found, self.word) for found in re.findall(r"[a-z]+", text.lower()))


def parts(name: str) -> Iterator[str]:
    """Return the words of an identifier, in small letters: `CursorField` and `cursor_field` have the same two."""
    for found in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name):
        yield found.lower()


def _same(found: str, word: str) -> bool:
    """Return True for the word itself, and for its plural."""
    return found in {word, f"{word}s"}


OLD_WORDS = (
    OldWord("crew", "task_pool", ANYWHERE),
    OldWord("sighting", "observed_versions", ANYWHERE),
    OldWord("wanted", "desired"),
    OldWord("following", "dependencies"),
    OldWord("silence", "heartbeat_monitor"),
    OldWord("deliveries", "outbox_dispatcher"),
    OldWord("sweeping", "resync"),
    OldWord("registration", "resync"),
    OldWord("grounds", "CollectionContext"),
    OldWord("positions", "state_store", Where.MODULE),
    OldWord("position", "cursor"),
    OldWord("reads", "read_anomalies, stream_reads", Where.MODULE),
    OldWord("artifacts", "compatibility", Where.MODULE),
    OldWord("memory", "oom_policy", Where.MODULE),
    OldWord("refusals", "errors, error_mapping", Where.MODULE),
    OldWord("recording", "connections"),
    OldWord("windows", "window_states", Where.MODULE),
    OldWord("asking", "discovery"),
    OldWord("places", "upload_grants", Where.MODULE),
    OldWord("garbage", "gc_tuning"),
    OldWord("guard", "write_guard", Where.MODULE),
    OldWord("fitter", "RecordValidator", ANYWHERE),
    OldWord("cutter", "Chunker", ANYWHERE),
    OldWord("trail", "CursorField", ANYWHERE),
    OldWord("border", "Watermark", ANYWHERE),
    OldWord("part", "partition"),
    OldWord("range", "partition"),
    OldWord("split", "partition"),
    OldWord("reading", "incremental", Where.MODULE),
    OldWord("laboratory", "harness", ANYWHERE),
    OldWord("subject", "target", Where.MODULE),
    OldWord("interposer", "fault_proxy", ANYWHERE),
    OldWord("observed", "process_probe", Where.MODULE),
    OldWord("closure", "dependencies"),
    OldWord("conduct", "sandbox"),
    OldWord("progress", "file_cursor", Where.MODULE),
    OldWord("sample", "schema_inference", Where.MODULE),
    OldWord("promise", "cursor or state", ANYWHERE),
    OldWord("mark", "cursor"),
    OldWord("bookmark", "cursor", ANYWHERE),
)
