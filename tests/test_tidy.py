"""Reads the source, and keeps what a reviewer would otherwise have to say again.

Every rule is a generator over the tree: it yields where something is wrong and what to write instead. Each carries a
small tree that breaks it, so that a rule which has stopped noticing is itself noticed. What a rule allows is data, here
at the top, and each exception has its reason beside it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest
from attrs import define, field, frozen

ROOT = Path(__file__).resolve().parent.parent

# Which parts a part may import, besides itself. `face` is dalsegno/__init__.py, what users import.
LAYERS = {
    "core": set(),
    "backends": {"core"},
    "testing": {"core", "backends"},
    "tools": {"core", "backends", "examples", "face"},
    "examples": {"face"},
    "face": {"core", "backends"},
}
_STORE = "a store is written against the key-value base and raises the errors of the port; it is no user of the face"
LAYERS_ALLOWED = {
    ("examples/sqlite_store.py", module): _STORE
    for module in ("dalsegno.backends.keyvalue", "dalsegno.backends.ordered", "dalsegno.core.errors")
}

# The modules that must give the same answer to the same history for ever, and whatever they import from us.
PURE = [
    f"dalsegno.core.{name}"
    for name in ("interpreter", "commands", "events", "values", "policies", "errors", "definitions")
]
IMPURE_IMPORTS = {
    "a clock": {"time", "sched"},
    "a file": {"os", "io", "pathlib", "shutil", "tempfile", "mmap", "fcntl", "lmdb", "sqlite3"},
    "a thread or process": {"threading", "_thread", "queue", "concurrent", "multiprocessing", "subprocess", "signal"},
    "an event loop": {"asyncio", "selectors", "select"},
    "chance": {"random", "secrets"},
    "a logger": {"logging", "warnings"},
    "a socket": {"socket", "ssl", "http", "urllib"},
    "the store": {"dalsegno.core.store", "dalsegno.backends"},
    "the engine": {"dalsegno.core.engine"},
}
# `datetime` and `uuid` are types of values as well; what they must not do here is to ask the machine.
IMPURE_CALLS = {
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "uuid1",
    "uuid4",
    "open",
    "input",
    "print",
}
IMPURE_ALLOWED = {
    (
        "core/commands/recalling.py",
        "random",
    ): "`Random()` hands the workflow a `random.Random` seeded by a recorded event",
    ("core/values/carriers.py", "pathlib"): "paths are values too; they are written as text and never followed",
}

IMPORTS_IN_FUNCTIONS_ALLOWED: dict[tuple[str, str], str] = {
    # Start-up: together these are more than a third of what `import dalsegno` would take, and few programs need them.
    ("core/store.py", "importlib.metadata"): "10 ms; only opening a store by URL looks at entry points",
    ("core/engine/run.py", "asyncio"): "13 ms; only who awaits a run has it, and has imported it already",
    (
        "core/engine/worker.py",
        "dalsegno.core.engine.executors",
    ): "concurrent.futures' threads; only for an executor",
    ("core/engine/worker.py", "dalsegno.core.engine.async_bodies"): "asyncio again; only for `async def` steps",
    ("core/engine/worker.py", "dalsegno.core.engine.sweeping"): "cattrs again; only where something is to be deleted",
    ("core/values/codec.py", "dalsegno.core.values.loose"): "cattrs, 12 ms; only for payloads given as JSON",
}

NO_PICKLE = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}

FILE_LINES_MAX = 600  # what one can still scroll through; h11's largest file has 659
FUNCTION_LINES_MAX = 60  # a screen
LONG_ALLOWED: dict[tuple[str, str], str] = {}

SLEEP_ALLOWED: dict[str, str] = {}

SHIPPED = ["core", "backends", "testing", "tools", "examples", "dalsegno"]
TESTS = ["tests"]

Function = ast.FunctionDef | ast.AsyncFunctionDef


@frozen
class Import:
    """One imported module, the line that says so, and the function it stands in, if any."""

    module: str
    line: int
    function: str | None


@define
class Source:
    """A file of the tree, parsed when first asked."""

    path: str
    text: str = field(repr=False)
    tree: Tree = field(repr=False)

    @property
    def part(self) -> str:
        folder = self.path.split("/")[0]
        return "face" if folder == "dalsegno" else folder

    @property
    def module(self) -> str:
        name = self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return name if self.part in ("face", "tests") else f"dalsegno.{name}"

    @cached_property
    def body(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def functions(self) -> list[Function]:
        return [node for node in ast.walk(self.body) if isinstance(node, Function)]

    @cached_property
    def calls(self) -> list[tuple[str, ast.Call]]:
        return [(ast.unparse(node.func), node) for node in ast.walk(self.body) if isinstance(node, ast.Call)]

    @cached_property
    def imports(self) -> list[Import]:
        inside = {id(node): function.name for function in self.functions for node in ast.walk(function)}
        statements = [node for node in ast.walk(self.body) if isinstance(node, ast.Import | ast.ImportFrom)]
        return [
            Import(module, node.lineno, inside.get(id(node)))
            for node in statements
            for module in self._imported_by(node)
        ]

    def _imported_by(self, node: ast.Import | ast.ImportFrom) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        base = "." * node.level + (node.module or "")
        inner = [f"{base}.{alias.name}" for alias in node.names]
        return sorted({name if name in self.tree else base for name in inner})

    def wrong(self, line: int, what: str) -> str:
        return f"{self.path}:{line}: {what}"


class Tree(dict[str, Source]):
    """The sources by the name of their module."""

    @classmethod
    def of(cls, files: dict[str, str]) -> Tree:
        tree = cls()
        for path, text in files.items():
            source = Source(path, text, tree)
            tree[source.module] = source
        return tree

    @classmethod
    def on_disk(cls, folders: list[str]) -> Tree:
        files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
        return cls.of({file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in files})


Rule = Callable[[Tree], Iterator[str]]
RULES: list[tuple[Rule, list[str], dict[str, str]]] = []


def rule(folders: list[str], broken_by: dict[str, str]) -> Callable[[Rule], Rule]:
    """Put a rule into the table, with the folders it reads and a small tree that breaks it."""

    def add(function: Rule) -> Rule:
        RULES.append((function, folders, broken_by))
        return function

    return add


def length(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def is_in(module: str, packages: set[str] | list[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@rule(SHIPPED, {"core/a.py": "from dalsegno.backends import memory", "backends/memory.py": ""})
def imports_run_one_way(tree: Tree) -> Iterator[str]:
    """Tools and testing lean on backends, backends on core, and nothing looks back."""
    parts = {f"dalsegno.{part}": part for part in LAYERS}
    for source in tree.values():
        for found in source.imports:
            if not is_in(found.module, ["dalsegno"]):
                continue
            part = parts.get(".".join(found.module.split(".")[:2]), "face")
            allowed_here = (source.path, found.module) in LAYERS_ALLOWED
            if part != source.part and part not in LAYERS[source.part] and not allowed_here:
                allowed = ", ".join(sorted({source.part} | LAYERS[source.part]))
                yield source.wrong(
                    found.line, f"{source.part} imports {found.module}; take it from {allowed}, or move it there"
                )


@rule([*SHIPPED, *TESTS], {"core/a.py": "import core.b", "core/b.py": "from .a import x"})
def imports_name_the_package(tree: Tree) -> Iterator[str]:
    """Imports are absolute and begin with `dalsegno`, since a second path to a module is a second module."""
    for source in tree.values():
        for found in source.imports:
            if found.module.startswith(".") or is_in(found.module, list(LAYERS)):
                yield source.wrong(found.line, f"import of {found.module}; write from dalsegno.… import …")


@rule(["core"], {"core/events.py": "from dalsegno.core import a", "core/a.py": "import time\nnow = datetime.now()"})
def the_pure_part_asks_nothing_of_the_machine(tree: Tree) -> Iterator[str]:
    """The interpreter and all it imports know no clock, file, thread, chance, logger, socket, store or engine."""
    todo, seen = [source for source in tree.values() if is_in(source.module, PURE)], set[str]()
    while todo:
        source = todo.pop()
        if source.module in seen:
            continue
        seen.add(source.module)
        for found in source.imports:
            kinds = [kind for kind, modules in IMPURE_IMPORTS.items() if is_in(found.module, modules)]
            if kinds and (source.path, found.module) not in IMPURE_ALLOWED:
                yield source.wrong(found.line, f"imports {kinds[0]} ({found.module}); let the engine pass the value in")
            elif found.module in tree:
                todo.append(tree[found.module])
        for name, call in source.calls:
            if name in IMPURE_CALLS or ".".join(name.split(".")[-2:]) in IMPURE_CALLS:
                yield source.wrong(call.lineno, f"calls {name}(); let it come in as a recorded event")


@rule(SHIPPED, {"core/a.py": "import dalsegno.core.b", "core/b.py": "import dalsegno.core.a"})
def no_import_cycles(tree: Tree) -> Iterator[str]:
    """No module needs itself in order to be imported, not even for a type."""
    graph = {
        module: {found.module for found in source.imports if not found.function} for module, source in tree.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        for imported, module in pairwise(cycle):
            line = next(found.line for found in tree[module].imports if found.module == imported)
            yield tree[module].wrong(
                line, f"imports {imported} in a circle; move what both need into a module below them"
            )


@rule(SHIPPED, {"core/a.py": "def f():\n    import json"})
def imports_stand_at_the_top(tree: Tree) -> Iterator[str]:
    """Functions import nothing, unless the reason is on record here."""
    for source in tree.values():
        for found in source.imports:
            if found.function and (source.path, found.module) not in IMPORTS_IN_FUNCTIONS_ALLOWED:
                yield source.wrong(
                    found.line,
                    f"{found.function}() imports {found.module}; write it at the top of the file, "
                    "or give the reason in IMPORTS_IN_FUNCTIONS_ALLOWED",
                )


@rule(SHIPPED, {"core/a.py": "import pickle", "core/b.py": "eval('1')"})
def nothing_runs_stored_bytes(tree: Tree) -> Iterator[str]:
    """No pickle, eval or exec: what is read from a store is data, never code."""
    for source in tree.values():
        for found in source.imports:
            if is_in(found.module, NO_PICKLE):
                yield source.wrong(found.line, f"imports {found.module}; encode with dalsegno.core.values")
        for name, call in source.calls:
            if name in ("eval", "exec"):
                yield source.wrong(call.lineno, f"calls {name}(); look the thing up in a table")


@rule(SHIPPED, {"core/a.py": "x = 1  # TODO: later"})
def no_leftover_notes(tree: Tree) -> Iterator[str]:
    """Work still to be done is an issue, not a comment."""
    for source in tree.values():
        for number, line in enumerate(source.text.splitlines(), 1):
            if note := re.search(r"\b(TODO|FIXME|XXX)\b", line):
                yield source.wrong(number, f"{note[0]}; do it, or file an issue and say here what holds today")


@rule(SHIPPED, {"core/a.py": "x = 1\n" * 601})
def files_can_be_read_in_one_go(tree: Tree) -> Iterator[str]:
    """A file has at most 600 lines."""
    for source in tree.values():
        lines = source.text.count("\n")
        if lines > FILE_LINES_MAX and (source.path, "") not in LONG_ALLOWED:
            yield source.wrong(lines, f"{lines} lines; split it where its second idea begins")


@rule(SHIPPED, {"core/a.py": "def f():\n" + "    x = 1\n" * 61})
def functions_fit_a_screen(tree: Tree) -> Iterator[str]:
    """A function has at most 60 lines besides its docstring."""
    for source in tree.values():
        for function in source.functions:
            lines = length(function)
            if ast.get_docstring(function):
                lines -= length(function.body[0])
            if lines > FUNCTION_LINES_MAX and (source.path, function.name) not in LONG_ALLOWED:
                yield source.wrong(function.lineno, f"{function.name}() has {lines} lines; give its parts names")


@rule(TESTS, {"tests/test_a.py": "import time\nfrom asyncio import sleep\ntime.sleep(1)\nsleep(delay)"})
def no_test_sleeps(tree: Tree) -> Iterator[str]:
    """A test moves the clock itself; only tests of real processes may wait for them."""
    for source in tree.values():
        for name, call in source.calls:
            yields_to_the_loop = [ast.unparse(argument) for argument in call.args] == ["0"]
            sleeps = name in ("time.sleep", "asyncio.sleep", "sleep") and not yields_to_the_loop
            if sleeps and source.path not in SLEEP_ALLOWED:
                yield source.wrong(call.lineno, f"calls {name}(); use a virtual clock, or wait on an event")


@rule(["testing", *TESTS], {"tests/test_a.py": "def test_it():\n    pass"})
def every_test_says_its_sentence(tree: Tree) -> Iterator[str]:
    """A test opens with one sentence that says which behaviour it keeps."""
    for source in tree.values():
        for function in source.functions:
            if function.name.startswith("test_") and not ast.get_docstring(function):
                yield source.wrong(function.lineno, f'{function.name}() says nothing; write """What must hold."""')


each_rule = pytest.mark.parametrize(
    ("rule", "folders", "broken_by"), RULES, ids=[function.__name__ for function, _, _ in RULES]
)


@each_rule
def test_the_tree_keeps_the_rule(rule: Rule, folders: list[str], broken_by: dict[str, str]):
    """The source as it stands breaks no rule."""
    found = list(rule(Tree.on_disk(folders)))
    assert not found, "\n".join(["", rule.__doc__ or "", *found])


@each_rule
def test_the_rule_notices(rule: Rule, folders: list[str], broken_by: dict[str, str]):
    """A tree made to break the rule is reported, in every file that breaks it."""
    found = list(rule(Tree.of(broken_by)))
    assert found
    assert all(re.match(r"\w+/\w+\.py:\d+: ", line) for line in found)


def test_exceptions_are_still_needed():
    """An exception whose file or import is gone is taken off the list."""
    tree = {source.path: source for source in Tree.on_disk([*SHIPPED, *TESTS]).values()}
    listed = [
        path
        for table in (LAYERS_ALLOWED, IMPURE_ALLOWED, IMPORTS_IN_FUNCTIONS_ALLOWED, LONG_ALLOWED)
        for path, _ in table
    ]
    assert [path for path in [*listed, *SLEEP_ALLOWED] if path not in tree] == []
    for path, module in [*LAYERS_ALLOWED, *IMPURE_ALLOWED, *IMPORTS_IN_FUNCTIONS_ALLOWED]:
        assert module in {found.module for found in tree[path].imports}, f"{path} does not import {module} any more"
