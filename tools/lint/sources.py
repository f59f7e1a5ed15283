"""A source file, and what its names mean: which function a call means, which module an alias stands for.

`Source.meaning(expression, scope)` answers with a `Function` of this or another file that was read, or with the dotted
name of what was imported ("datetime.datetime.now", "dalsegno.Sleep", "open" for a builtin), or with None where it is a
local variable or anything else that only running would tell. A wrong None misses a finding; nothing is ever guessed.

Other files are looked up beside this one and read as text, so that a step imported from `shop.steps` is known as one.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import attrs

from dalsegno.core import commands

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
ScopeNode = FunctionNode | ast.Module | ast.ClassDef | ast.Lambda
Kind = Literal["workflow", "step", "plain", "decorated"]

COMMANDS: Final = frozenset(
    name for name, value in vars(commands).items() if isinstance(value, type) and issubclass(value, commands.Command)
)
_FACES: Final = ("dalsegno.core.commands.", "dalsegno.core.definitions.", "dalsegno.core.errors.")
HARMLESS_DECORATORS: Final = frozenset({"functools.wraps", "staticmethod", "typing.no_type_check", "typing.overload"})
MAX_HOPS = 5
"""How many files a name may be passed on through by import before it is given up."""


@attrs.define(eq=False)
class Function:
    """A function of a source file."""

    node: FunctionNode
    source: Source = attrs.field(repr=False)
    scope: Scope = attrs.field(repr=False)
    kind: Kind

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def is_async(self) -> bool:
        return isinstance(self.node, ast.AsyncFunctionDef)

    @cached_property
    def is_generator(self) -> bool:
        """Whether its body yields."""
        return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own_nodes(self.node))

    @property
    def is_branch(self) -> bool:
        """Whether calling it makes something to be driven, instead of doing something."""
        return self.is_generator or self.is_async


@attrs.define(eq=False)
class Scope:
    """The names bound in a module, class, function or lambda. `bound` holds what they are bound to, as far as known."""

    node: ScopeNode
    parent: Scope | None
    bound: dict[str, Function | str | None] = attrs.field(factory=dict)
    functions: dict[int, Function] = attrs.field(factory=dict)
    children: dict[int, Scope] = attrs.field(factory=dict)
    global_names: set[str] = attrs.field(factory=set)
    aliases: dict[str, ast.expr | None] = attrs.field(factory=dict)

    def find(self, name: str) -> Scope | None:
        """The scope that a name is bound in, seen from here; classes are not seen from functions inside them."""
        scope: Scope | None = self
        while scope is not None:
            seen = scope is self or not isinstance(scope.node, ast.ClassDef)
            if seen and name in scope.bound and name not in scope.global_names:
                return scope
            scope = scope.parent
        return None


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Everything inside a function's body that runs as part of it: not what is inside functions defined there."""
    body = getattr(node, "body", [])
    todo: list[ast.AST] = list(reversed(body)) if isinstance(body, list) else [body]
    while todo:
        current = todo.pop()
        yield current
        if isinstance(current, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        todo.extend(reversed(list(ast.iter_child_nodes(current))))


class Source:
    """A parsed file. Raises `SyntaxError` when it is none."""

    def __init__(self, path: str, text: str, files: Files) -> None:
        self.path, self.text, self.files = path, text, files
        self.tree = ast.parse(text, path)
        self.parents: dict[ast.AST, ast.AST] = {
            child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)
        }
        self.module = files.module_name(Path(path))
        self.scope = Scope(self.tree, None)
        self.functions: list[Function] = []
        self._bind(self.tree, self.scope)
        for function in self.functions:
            function.kind = self._kind(function)

    # --- what is bound where -----------------------------------------------------------------------------------------

    def _bind(self, node: ast.AST, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
                self._bind_inner(child, scope)
                continue
            match child:
                case ast.Import():
                    for alias in child.names:
                        scope.bound[alias.asname or alias.name.partition(".")[0]] = (
                            alias.name if alias.asname else alias.name.partition(".")[0]
                        )
                case ast.ImportFrom():
                    base = self._base(child)
                    for alias in child.names:
                        if alias.name == "*" and base == "dalsegno":
                            scope.bound.update({name: f"dalsegno.{name}" for name in COMMANDS})
                            scope.bound.update({name: f"dalsegno.{name}" for name in ("step", "workflow", "Cancelled")})
                        scope.bound[alias.asname or alias.name] = f"{base}.{alias.name}"
                case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                    self._bind_local(name, scope)
                case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                    self._bind_local(name, scope)
                case ast.Global() | ast.Nonlocal():
                    scope.global_names.update(child.names)
            self._bind(child, scope)
            if isinstance(child, ast.Assign) and len(child.targets) == 1 and isinstance(child.targets[0], ast.Name):
                name = child.targets[0].id
                # Bound a second time it may be either, so it is neither.
                scope.aliases[name] = child.value if name not in scope.aliases else None

    def _bind_local(self, name: str, scope: Scope) -> None:
        if name not in scope.global_names:
            scope.bound[name] = None

    def _bind_inner(self, node: FunctionNode | ast.ClassDef | ast.Lambda, scope: Scope) -> None:
        inner = Scope(node, scope)
        scope.children[id(node)] = inner
        if isinstance(node, ast.ClassDef):
            scope.bound[node.name] = f"{self.module}.{node.name}"
        elif not isinstance(node, ast.Lambda):
            function = Function(node, self, scope, "plain")
            self.functions.append(function)
            scope.functions[id(node)] = function
            scope.bound[node.name] = function
        self._bind(node, inner)

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self.module.split(".")
        if not Path(self.path).name.startswith("__init__"):
            package = package[:-1]
        kept = package[: len(package) - (node.level - 1)]
        return ".".join([*kept, node.module] if node.module else kept)

    def _kind(self, function: Function) -> Kind:
        """What the decorators make of a function."""
        other = False
        for decorator in function.node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            meaning = self.meaning(called, function.scope)
            if meaning in ("dalsegno.workflow", "dalsegno.step"):
                return "workflow" if meaning == "dalsegno.workflow" else "step"
            other = other or meaning not in HARMLESS_DECORATORS
        return "decorated" if other else "plain"

    def scope_of(self, node: ast.AST) -> Scope:
        """The scope that an expression stands in."""
        inner: list[ast.AST] = []
        current: ast.AST | None = node
        while current is not None:
            parent = self.parents.get(current)
            if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
                inner.append(parent)
            current = parent
        scope = self.scope
        for each in reversed(inner):
            scope = scope.children.get(id(each), scope)
        return scope

    # --- what is meant -----------------------------------------------------------------------------------------------

    def meaning(self, node: ast.AST, scope: Scope, hops: int = MAX_HOPS) -> Function | str | None:
        """What an expression names."""
        if not hops:
            return None
        if isinstance(node, ast.Name):
            found = scope.find(node.id)
            if found is None:
                return node.id if hasattr(builtins, node.id) else None
            alias = found.aliases.get(node.id)
            if found.bound[node.id] is None and isinstance(alias, ast.Name | ast.Attribute | ast.Call):
                return self.meaning(alias, found, hops - 1)
            return self._followed(found.bound[node.id])
        if isinstance(node, ast.Attribute):
            base = self.meaning(node.value, scope, hops)
            if isinstance(base, str):
                return self._followed(f"{base}.{node.attr}")
            return None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "options":
            return self.meaning(node.func.value, scope, hops)  # charge.options(timeout=5) is charge
        if isinstance(node, ast.Subscript):
            return self.meaning(node.value, scope, hops)  # Receive[Approval]
        return None

    def _followed(self, meaning: Function | str | None) -> Function | str | None:
        if isinstance(meaning, str):
            for face in _FACES:
                if meaning.startswith(face):
                    return f"dalsegno.{meaning.removeprefix(face)}"
            return self.files.function(meaning, self, MAX_HOPS) or meaning
        return meaning


class Files:
    """The files that were read, and where others are found. Reads each once."""

    def __init__(self) -> None:
        self._read: dict[str, Source | None] = {}

    def read(self, path: Path) -> Source:
        """A file. Raises `OSError`, `UnicodeDecodeError`, `SyntaxError`."""
        key = str(path.absolute())
        found = self._read.get(key)
        if found is None:
            self._read[key] = None  # a file that imports itself, through others, meets this
            found = self._read[key] = Source(str(path), path.read_text("utf-8"), self)
        return found

    @staticmethod
    def module_name(path: Path) -> str:
        """The dotted name of the module a file is, told from the packages it lies in."""
        parts = [] if path.stem == "__init__" else [path.stem]
        folder = path.absolute().parent
        while (folder / "__init__.py").is_file():
            parts.insert(0, folder.name)
            folder = folder.parent
        return ".".join(parts)

    @staticmethod
    def _root(path: Path) -> Path:
        folder = path.absolute().parent
        while (folder / "__init__.py").is_file():
            folder = folder.parent
        return folder

    def function(self, dotted: str, seen_from: Source, hops: int) -> Function | None:
        """The function that a dotted name means, if its file lies beside the one it is seen from."""
        module, _, name = dotted.rpartition(".")
        if not module or not hops or module.startswith("dalsegno."):
            return None
        stem = self._root(Path(seen_from.path)).joinpath(*module.split("."))
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            try:
                source = self._read[str(path)] if str(path) in self._read else self.read(path)
            except (OSError, UnicodeDecodeError, SyntaxError):
                continue
            if source is not None:
                bound = source.scope.bound.get(name)
                if isinstance(bound, str):
                    return self.function(bound, source, hops - 1)
                if bound is None and source.scope.aliases.get(name) is not None:
                    meant = source.meaning(ast.Name(name, ast.Load()), source.scope, hops - 1)
                    return meant if isinstance(meant, Function) else None
                return bound
        return None
