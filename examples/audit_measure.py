"""Measuring one file of Python: the pure part of the audit, which knows nothing of workflows.

Whatever a file turns out to be is an answer, not an error. A source tree as old as the standard library holds files
that do not parse on purpose (tests of the parser need them), in encodings nobody uses any more, and files that are
gone by the time one gets to them; each of these is a `Finding`, and the audit goes on.
"""

from __future__ import annotations

import ast
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules"})
TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Documented = Definition | ast.Module

BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)
"""Where the flow of control splits, besides `and`/`or` and the conditions of comprehensions (after McCabe, 1976)."""

# `warnings.catch_warnings` changes a list that all threads share. Parsing holds the interpreter lock anyway, so
# letting one thread at a time parse costs nothing.
_parsing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a reader of the report should know. `line` is 0 where it concerns the whole file."""

    kind: str
    text: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class FileMeasure:
    """What is known of one file. A file that does not parse has its lines, if any, and its findings."""

    path: str
    lines: int = 0
    functions: int = 0
    classes: int = 0
    branches: int = 0
    public: int = 0
    documented: int = 0
    imports: tuple[str, ...] = ()
    longest: str = ""
    longest_lines: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Package:
    """A folder of source files; `name` is dotted, "." for the root itself. Paths are relative to the root."""

    name: str
    files: tuple[str, ...]


def packages_of(root: Path, *, tests: bool) -> list[Package]:
    """The folders below `root` that hold Python files, in the order of their names. Symbolic links are not followed.

    Raises `NotADirectoryError` where there is no such folder: an audit of nothing would look like a clean one.
    """
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder; the audit takes the root of a source tree")
    skipped = SKIPPED_FOLDERS if tests else SKIPPED_FOLDERS | TEST_FOLDERS
    return list(_packages(root, root, skipped))


def _packages(root: Path, folder: Path, skipped: frozenset[str]) -> Iterator[Package]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:  # gone or closed to us since its parent was read: nothing to measure here
        return
    # A name that is not UTF-8 cannot be stored as text; such a file could not be imported either.
    entries = [entry for entry in entries if entry.name.isprintable() and _is_text(entry.name)]
    files = [entry.relative_to(root).as_posix() for entry in entries if entry.suffix == ".py" and entry.is_file()]
    if files:
        yield Package(".".join(folder.relative_to(root).parts) or ".", tuple(files))
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink() and entry.name not in skipped and not entry.name.startswith("."):
            yield from _packages(root, entry, skipped)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def measure(root: Path, path: str) -> FileMeasure:
    """Measure the file `path` below `root`. Never raises for what the file is, nor for its having vanished."""
    try:
        source = (root / path).read_bytes()
    except FileNotFoundError:
        return FileMeasure(path, findings=(Finding("vanished", "listed, and gone when its turn came"),))
    except OSError as error:
        return FileMeasure(path, findings=(Finding("unreadable", error.strerror or str(error)),))
    return measure_source(source, path)


def measure_source(source: bytes, path: str) -> FileMeasure:
    """Measure the text of a file.

    >>> found = measure_source(b'def f(x):\\n    return 1 if x else 2\\n', 'f.py')
    >>> found.functions, found.branches, found.documented, found.public, found.longest
    (1, 1, 0, 2, 'f')
    """
    lines = len(source.splitlines())
    try:
        tree, findings = _parse(source, path)
        nodes = list(ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # ValueError: bytes of zero (before Python 3.12). The other two: nested deeper than the parser goes.
        return FileMeasure(path, lines, findings=(_failure(error),))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    public: list[Documented] = [tree, *_public(tree)]
    longest = max(functions, key=_length, default=None)
    return FileMeasure(
        path,
        lines,
        functions=len(functions),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        branches=sum(map(_branches, nodes)),
        public=len(public),
        documented=sum(ast.get_docstring(node, clean=False) is not None for node in public),
        imports=tuple(sorted(set(_imports(nodes)))),
        longest=longest.name if longest else "",
        longest_lines=_length(longest) if longest else 0,
        findings=findings,
    )


def _parse(source: bytes, path: str) -> tuple[ast.Module, tuple[Finding, ...]]:
    """The tree, and what the parser warned of (escapes that mean nothing, `is` with a literal, …)."""
    with _parsing, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = ast.parse(source, path)
    # Other threads' warnings land in the same list; ours name our file.
    ours = {Finding("warning", str(w.message), w.lineno): None for w in caught if w.filename == path}
    return tree, tuple(ours)


def _failure(error: Exception) -> Finding:
    line = (error.lineno or 0) if isinstance(error, SyntaxError) else 0
    text = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
    kind = "encoding" if "encod" in text or "codec" in text else "does not parse"
    # The parser quotes the source, so the text may hold halves of surrogate pairs, which no store takes.
    return Finding(kind, text.encode("utf-8", "backslashreplace").decode(), line)


def _public(node: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    """What a reader would look for in the documentation: no leading underscore, and not inside a function."""
    for child in node.body:
        if isinstance(child, Definition) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from _public(child)


def _branches(node: ast.AST) -> int:
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return len(node.ifs)
    return isinstance(node, BRANCHES)


def _imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The top-level names of what is imported absolutely."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _length(node: Definition) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
