"""The sources as syntax trees, read from the working tree or from a commit."""

from __future__ import annotations

import ast
import io
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[3]

ARCHIVED = ("operator/src", "connector-sdk/src", "connectors", "tests")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Definition:
    """A class or function, with the classes and functions around it."""

    node: ast.ClassDef | Function
    names: tuple[str, ...]
    in_function: bool
    """Whether it stands inside a function."""

    @property
    def name(self) -> str:
        """The qualified name inside the module."""
        return ".".join(self.names)

    @property
    def is_public(self) -> bool:
        """Return True if neither its name nor a name around it starts with an underscore; `__init__` is public."""
        return all(not name.startswith("_") or name.endswith("__") for name in self.names)


@dataclass(frozen=True)
class Module:
    """One source file."""

    path: PurePosixPath
    """Relative to the root of the repository."""
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, str(self.path))

    @cached_property
    def name(self) -> str:
        """The dotted name by which it is imported."""
        inside = self.path.parts[self.path.parts.index("src") + 1 :]
        dotted = PurePosixPath(*inside).with_suffix("").parts
        return ".".join(dotted[:-1] if dotted[-1] == "__init__" else dotted)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def definitions(self) -> list[Definition]:
        """All classes and functions, outer ones first."""
        return list(_definitions(self.tree, (), in_function=False))

    @cached_property
    def annotations(self) -> list[ast.expr]:
        """All annotations: of parameters, results, fields and variables."""
        return [annotation for node in self.nodes for annotation in _annotations(node)]

    @property
    def is_test(self) -> bool:
        """Return True for a module of tests/, which is no source."""
        return self.path.parts[0] == "tests"

    def is_below(self, package: str) -> bool:
        """Return True if this is the package or module of that dotted name, or lives inside it."""
        return self.name == package or self.name.startswith(f"{package}.")


def _definitions(node: ast.AST, around: tuple[str, ...], *, in_function: bool) -> Iterator[Definition]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | Function):
            names = (*around, child.name)
            yield Definition(child, names, in_function)
            yield from _definitions(child, names, in_function=in_function or isinstance(child, Function))
        else:
            yield from _definitions(child, around, in_function=in_function)


def parameters(function: Function) -> list[ast.arg]:
    """Return all parameters of a function."""
    arguments = function.args
    extra = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra]


def signature(function: Function) -> list[ast.expr]:
    """Return the annotations of a function's parameters and of its result."""
    annotations = [parameter.annotation for parameter in parameters(function)]
    return [annotation for annotation in (*annotations, function.returns) if annotation is not None]


def _annotations(node: ast.AST) -> Iterable[ast.expr]:
    if isinstance(node, Function):
        return signature(node)
    if isinstance(node, ast.AnnAssign):
        return [node.annotation]
    return []


def working_tree() -> list[Module]:
    """Return the sources as they are now."""
    roots = [ROOT / "operator/src", ROOT / "connector-sdk/src", *sorted(ROOT.glob("connectors/*/src"))]
    paths = sorted(path for root in roots for path in root.rglob("*.py"))
    return _modules((path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths)


def tree_of_tests() -> list[Module]:
    """Return the tests as they are now."""
    paths = [path for path in sorted((ROOT / "tests").rglob("*.py")) if "cluster/machine" not in path.as_posix()]
    return _modules((path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths)


def last_counted(table: Path) -> list[Module] | None:
    """Return the sources and tests of the commit that last changed the table, or None outside of a git repository."""
    try:
        commit = _git("log", "-1", "--format=%H", "--", str(table.relative_to(ROOT))).decode().strip()
        archive = _git("archive", commit, *ARCHIVED) if commit else None
    except (OSError, subprocess.CalledProcessError):
        return None
    return None if archive is None else _modules(_files(archive))


def _files(archive: bytes) -> Iterator[tuple[str, str]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() and member.name.endswith(".py") else None
            if content is not None:
                yield member.name, content.read().decode()


def _modules(files: Iterable[tuple[str, str]]) -> list[Module]:
    return [Module(PurePosixPath(path), text) for path, text in files if "/scaffold/" not in path]


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True).stdout  # noqa: S607 - git of the path
