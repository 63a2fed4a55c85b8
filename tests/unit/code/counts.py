"""Counts of what the sources still have and should not have; `make counts` writes them to counts.toml.

A count may only fall. Each count is a function that lists the places; `COUNTS` has them all, by the name that the
table uses.
"""

from __future__ import annotations

import ast
import contextlib
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tests.unit.code.old_words import OLD_WORDS, OldWord
from tests.unit.code.sources import (
    Definition,
    Function,
    Module,
    last_counted,
    parameters,
    signature,
    tree_of_tests,
    working_tree,
)

TABLE = Path(__file__).with_name("counts.toml")

DOCUMENTS_ENTER = (
    "penstock_operator.resources",
    "penstock_operator.embedded.documents",
    "penstock_operator.launchers.jobs",
)
"""Packages and modules that read documents and JSON, or write them for Kubernetes; literal keys are right there."""

UNKNOWN_VALUES = frozenset({"Any", "object", "JsonValue", "Json"})
"""Values that say nothing about the shape of the dict that holds them."""
NAMED_DOCUMENTS = frozenset(
    {
        ("penstock_sdk.json_types", "JsonObject"),
        ("penstock_sdk.json_types", "JsonSchema"),
        ("penstock_sdk.json_types", "JsonValue"),
        ("penstock_sdk.contract", "Cursor"),
        ("penstock_sdk.contract", "Record"),
    }
)
"""Types whose fields another party decides: the author of a connector, the source, or JSON Schema. Their names say this, so
they are not dicts of unknown shape. The list is short on purpose: a dict whose keys our own code reads gets a class instead,
and an alias of `dict[str, Any]` or of `dict[str, JsonValue]` still counts. `test_counts` checks that none of them hides `Any`.
"""
POLLS = (ast.While, ast.For, ast.AsyncFor)
MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping", "defaultdict", "OrderedDict"}
IDS = re.compile(r"(.*_)?(uid|id|namespace|attempt)")
PLAIN = {"str", "int"}
OWN = {"self", "cls", "super()"}
NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}
"""The public methods of a named tuple, whose names begin with an underscore so that no field has the same name."""


@dataclass(frozen=True, slots=True)
class Place:
    """One place that a count counts."""

    what: str
    """The name of what is counted there. It has no module and no line, so that a moved place is not a new one."""
    path: PurePosixPath
    line: int
    more: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what} {self.more}".rstrip()


Count = Callable[[list[Module]], Iterator[Place]]


# --- what an annotation says

Names = frozenset[tuple[str, str]]
"""Names, each with the module that defines it."""


class Annotations:
    """Says of annotations whether they hide the shape of data, by themselves or through an alias."""

    def __init__(self, modules: list[Module]) -> None:
        self._aliases = {module.name: dict(_aliases(module)) for module in modules}
        self._imports = {module.name: dict(_imports(module)) for module in modules}

    def has_unknown_dict(self, module: str, annotation: ast.expr, inside: Names = frozenset()) -> bool:
        """Return True for `dict[str, Any]`, a bare `dict`, what contains one, and names that stand for one.

        `inside` are the aliases in which the annotation stands: a recursive type contains itself.
        """
        if self._is_named_document(module, annotation):
            return False
        if isinstance(annotation, ast.Subscript) and _name(annotation.value) in MAPPINGS:
            return self._has_unknown_value(module, annotation) or self.has_unknown_dict(module, annotation.slice)
        if _name(annotation) in MAPPINGS:
            return True
        return any(self.has_unknown_dict(*part) for part in self._parts(module, annotation, inside))

    def _is_named_document(self, module: str, annotation: ast.expr) -> bool:
        return isinstance(annotation, ast.Name) and self._definition(module, annotation.id) in NAMED_DOCUMENTS

    def has_any(
        self,
        module: str,
        annotation: ast.expr,
        inside: Names = frozenset(),
        values: frozenset[str] = frozenset({"Any"}),
    ) -> bool:
        """Return True if the annotation says `Any`, or another of the values."""
        if _name(annotation) in values:
            return True
        return any(self.has_any(*part, values) for part in self._parts(module, annotation, inside))

    def _has_unknown_value(self, module: str, mapping: ast.Subscript) -> bool:
        if not isinstance(mapping.slice, ast.Tuple):
            return True
        value = mapping.slice.elts[-1]
        if _name(value) not in UNKNOWN_VALUES and self._is_named_document(module, value):
            return False
        return self.has_any(module, value, values=UNKNOWN_VALUES)

    def _parts(self, module: str, annotation: ast.expr, inside: Names) -> Iterator[tuple[str, ast.expr, Names]]:
        """Return the parts of an annotation, each with the module in which its names mean something."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            with contextlib.suppress(SyntaxError):
                yield module, ast.parse(annotation.value, mode="eval").body, inside
        elif isinstance(annotation, ast.Name):
            yield from self._meaning(module, annotation.id, inside)
        for child in ast.iter_child_nodes(annotation):
            if isinstance(child, ast.expr):
                yield module, child, inside

    def _definition(self, module: str, name: str) -> tuple[str, str]:
        """Return the module that defines a name, and its name there."""
        imported = self._imports.get(module, {})
        while name not in self._aliases.get(module, {}) and name in imported:
            module, name = imported[name]
            imported = self._imports.get(module, {})
        return module, name

    def _meaning(self, module: str, name: str, inside: Names) -> Iterator[tuple[str, ast.expr, Names]]:
        """Return what an alias stands for, and the module that defines it."""
        alias = self._definition(module, name)
        module, name = alias
        found = self._aliases.get(module, {}).get(name)
        if found is not None and _name(found) != name and alias not in inside:
            yield module, found, inside | {alias}


def _aliases(module: Module) -> Iterator[tuple[str, ast.expr]]:
    for node in _statements(module.tree.body):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if isinstance(node.value, ast.Subscript | ast.Name | ast.BinOp):
                yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and _name(node.annotation) == "TypeAlias" and node.value is not None:
            yield _name(node.target), node.value


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Return the statements of a module. Of `if TYPE_CHECKING` only the types that a type checker sees."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements(node.body)
        else:
            yield node


def _imports(module: Module) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in module.nodes:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                yield name.asname or name.name, (node.module, name.name)


def _name(node: ast.expr) -> str:
    """Return the name that a plain or dotted name ends with."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _names(annotation: ast.expr) -> set[str]:
    return {_name(node) for node in ast.walk(annotation) if isinstance(node, ast.expr)}


# --- the counts of names and types


def signatures_with_row(modules: list[Module]) -> Iterator[Place]:
    """Functions outside of the registry package whose signature says `Row`."""
    for module in modules:
        if not module.is_below("penstock_operator.registry"):
            for definition, function in _functions(module):
                if any("Row" in _names(annotation) for annotation in signature(function)):
                    yield Place(definition.name, module.path, function.lineno)


def public_signatures(modules: list[Module]) -> Iterator[Place]:
    """Functions and methods of public names. A private module counts too: its public functions are used outside of it."""
    for module in modules:
        for definition, function in _functions(module):
            if definition.is_public and not definition.in_function:
                yield Place(definition.name, module.path, function.lineno)


def public_signatures_with_unknown_dict(modules: list[Module]) -> Iterator[Place]:
    """Public signatures with a dict of unknown shape: `dict[str, Any]`, `Mapping[str, object]`, `dict`, an alias."""
    return _public_signatures(modules, Annotations(modules).has_unknown_dict)


def public_signatures_with_any(modules: list[Module]) -> Iterator[Place]:
    """Public signatures that say `Any`, also as the value of a dict."""
    return _public_signatures(modules, Annotations(modules).has_any)


def _public_signatures(modules: list[Module], test: Callable[[str, ast.expr], bool]) -> Iterator[Place]:
    for module in modules:
        for definition, function in _functions(module):
            public = definition.is_public and not definition.in_function
            if public and any(test(module.name, annotation) for annotation in signature(function)):
                yield Place(definition.name, module.path, function.lineno)


def public_fields_with_unknown_dict(modules: list[Module]) -> Iterator[Place]:
    """Fields of public classes with a dict of unknown shape."""
    annotations = Annotations(modules)
    for module in modules:
        for definition, field in _fields(module):
            public = definition.is_public and not _name(field.target).startswith("_")
            if public and annotations.has_unknown_dict(module.name, field.annotation):
                yield Place(f"{definition.name}.{_name(field.target)}", module.path, field.lineno)


def subscripts_by_literal_key(modules: list[Module]) -> Iterator[Place]:
    """`document["key"]`, outside of the modules where documents and JSON enter."""
    for module in modules:
        if any(module.is_below(package) for package in DOCUMENTS_ENTER):
            continue
        types = {id(node) for annotation in module.annotations for node in ast.walk(annotation)}
        for node in module.nodes:
            if isinstance(node, ast.Subscript) and id(node) not in types and _is_literal_key(node):
                yield Place(ast.unparse(node), module.path, node.lineno)


def _is_literal_key(node: ast.Subscript) -> bool:
    key = node.slice
    return isinstance(key, ast.Constant) and isinstance(key.value, str) and _name(node.value) != "Literal"


def plain_ids(modules: list[Module]) -> Iterator[Place]:
    """Parameters and fields that are named like an id and typed `str` or `int`."""
    for module in modules:
        for definition, function in _functions(module):
            for parameter in parameters(function):
                if _is_plain_id(parameter.arg, parameter.annotation):
                    yield Place(f"{definition.name}({parameter.arg})", module.path, parameter.lineno)
        for definition, field in _fields(module):
            if _is_plain_id(_name(field.target), field.annotation):
                yield Place(f"{definition.name}.{_name(field.target)}", module.path, field.lineno)


def _is_plain_id(name: str, annotation: ast.expr | None) -> bool:
    if annotation is None or not IDS.fullmatch(name):
        return False
    names = {part.strip() for part in ast.unparse(annotation).strip("'\"").split("|")} - {"None"}
    return bool(names) and names <= PLAIN


def loops_named_each(modules: list[Module]) -> Iterator[Place]:
    """Loops and comprehensions whose item is named `each`."""
    for module in modules:
        for node in module.nodes:
            if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension) and "each" in _names(node.target):
                yield Place(f"for each in {ast.unparse(node.iter)}", module.path, node.target.lineno)


def loops_named_each_in_tests(modules: list[Module]) -> Iterator[Place]:
    """Loops and comprehensions of tests whose item is named `each`."""
    return loops_named_each(modules)


def class_names_defined_twice(modules: list[Module]) -> Iterator[Place]:
    """Names of public classes that two modules define, or more."""
    found = defaultdict(list)
    for module in modules:
        for definition in module.definitions:
            if isinstance(definition.node, ast.ClassDef) and definition.is_public and len(definition.names) == 1:
                found[definition.name].append((module.path, definition.node.lineno))
    return _repeated(found, allowed=1)


def module_names_more_than_twice(modules: list[Module]) -> Iterator[Place]:
    """Names that more than two modules or packages have."""
    found = defaultdict(list)
    for path in sorted({_module_path(module) for module in modules}):
        if path.stem not in {"__init__", "__main__", "connector"}:  # each connector has a connector.py
            found[path.stem].append((path, 1))
    return _repeated(found, allowed=2)


def _module_path(module: Module) -> PurePosixPath:
    return module.path.parent if module.path.name == "__init__.py" else module.path


def _repeated(found: dict[str, list[tuple[PurePosixPath, int]]], allowed: int) -> Iterator[Place]:
    for name, places in sorted(found.items()):
        if len(places) > allowed:
            path, line = places[-1]
            others = ", ".join(str(other) for other, _ in places[:-1])
            yield Place(name, path, line, f"also in {others}")


def _functions(module: Module) -> Iterator[tuple[Definition, Function]]:
    for definition in module.definitions:
        if isinstance(definition.node, Function):
            yield definition, definition.node


def _fields(module: Module) -> Iterator[tuple[Definition, ast.AnnAssign]]:
    for definition in module.definitions:
        if isinstance(definition.node, ast.ClassDef):
            for node in definition.node.body:
                if isinstance(node, ast.AnnAssign):
                    yield definition, node


# --- the counts of words


def old_word(word: OldWord) -> Count:
    """Return the count of an old word."""

    def places(modules: list[Module]) -> Iterator[Place]:
        for path in sorted({_module_path(module) for module in modules}):
            if word.is_in_module(path.stem):
                yield Place(f"module {path.stem}", path, 1)
        for module in modules:
            for definition in module.definitions:
                if word.is_in_name(definition.names[-1]):
                    yield Place(definition.name, module.path, definition.node.lineno)
            for node in module.nodes:
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and word.is_in_text(node.value):
                    yield Place(_line_with(word, node.value), module.path, node.lineno)

    places.__doc__ = f"Say {word.instead} instead of {word.word}."
    return places


def _line_with(word: OldWord, text: str) -> str:
    return next((line.strip() for line in text.splitlines() if word.is_in_text(line)), text)


# --- the counts of tests


def private_names_in_tests(modules: list[Module]) -> Iterator[Place]:
    """Attributes that start with one underscore, of something other than `self`, `cls` or `super()`."""
    for module in modules:
        for node in module.nodes:
            if isinstance(node, ast.Attribute) and _is_private(node.attr) and ast.unparse(node.value) not in OWN:
                yield Place(ast.unparse(node), module.path, node.lineno)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in NAMED_TUPLE


def sleeps_in_tests(modules: list[Module]) -> Iterator[Place]:
    """Calls of `time.sleep` and `asyncio.sleep`, unless in a loop that waits for a condition."""
    for module in modules:
        polling = {id(node) for loop in module.nodes if isinstance(loop, POLLS) for node in ast.walk(loop)}
        calls = [node for node in module.nodes if isinstance(node, ast.Call) and id(node) not in polling]
        for call in calls:
            if ast.unparse(call.func) in {"time.sleep", "asyncio.sleep"} and ast.unparse(call) != "asyncio.sleep(0)":
                yield Place(ast.unparse(call), module.path, call.lineno)


COUNTS: dict[str, Count] = {
    count.__name__: count
    for count in (
        signatures_with_row,
        public_signatures_with_unknown_dict,
        public_signatures_with_any,
        public_fields_with_unknown_dict,
        subscripts_by_literal_key,
        plain_ids,
        loops_named_each,
        loops_named_each_in_tests,
        class_names_defined_twice,
        module_names_more_than_twice,
        private_names_in_tests,
        sleeps_in_tests,
    )
} | {f"old_word_{word.word}": old_word(word) for word in OLD_WORDS}


# --- the table


def read_table(text: str) -> dict[str, int]:
    """Return the numbers of the table. Of two numbers for one count (a merge conflict) the lower one is meant."""
    numbers: dict[str, int] = {}
    for name, number in re.findall(r"^(\w+) = (\d+)$", text, re.MULTILINE):
        numbers[name] = min(int(number), numbers.get(name, int(number)))
    return numbers


def table_text(numbers: dict[str, int]) -> str:
    """Return the text of the table."""
    lines = [f"{name} = {number}" for name, number in numbers.items()]
    return "\n".join(
        ["# Written by `make counts`. Each number may only fall; counts.py says what it counts.", *lines, ""]
    )


def places_of(name: str, modules: list[Module]) -> list[Place]:
    """Return the places of a count: those in tests for a count of tests, else those in sources."""
    of_tests = name.endswith("_in_tests")
    return list(COUNTS[name]([module for module in modules if module.is_test == of_tests]))


def new_places(name: str, places: list[Place]) -> list[Place]:
    """Return the places that the commit that last wrote the table did not have; all places if there is none."""
    before = last_counted(TABLE)
    known = Counter(place.what for place in places_of(name, before or []))
    found = []
    for place in places:
        known[place.what] -= 1
        if known[place.what] < 0:
            found.append(place)
    return found or places


def risen(name: str, places: list[Place], allowed: int) -> str:
    """Return the message for a count that rose."""
    listed = "\n".join(f"  {place}" for place in new_places(name, places))
    return f"{name} rose from {allowed} to {len(places)}. {COUNTS[name].__doc__} New:\n{listed}"


def main() -> int:
    """Write the counts that fell into the table, and say which rose."""
    modules = working_tree() + tree_of_tests()
    allowed = read_table(TABLE.read_text()) if TABLE.exists() else {}
    found = {name: places_of(name, modules) for name in COUNTS}
    numbers = {name: min(len(places), allowed.get(name, len(places))) for name, places in found.items()}
    TABLE.write_text(table_text(numbers))
    everything = len(list(public_signatures([module for module in modules if not module.is_test])))
    for name, places in found.items():
        share = f" ({len(places) / everything:.1%} of {everything})" if name.startswith("public_signatures") else ""
        sys.stdout.write(f"{name} = {len(places)}{share}\n")
    rose = [risen(name, places, numbers[name]) for name, places in found.items() if len(places) > numbers[name]]
    sys.stderr.write("".join(f"{message}\n" for message in rose))
    return 1 if rose else 0


if __name__ == "__main__":
    sys.exit(main())
