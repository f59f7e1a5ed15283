"""Which code of a file runs inside workflows: the workflows, and what of the same file they call.

A generator helper is reached by `yield from`, by `await`, or as a branch (`All(helper(a), helper(b))`, `Map(helper,
…)`); a plain function by being called. Not reached: steps, functions with a decorator of unknown meaning, and what
stands inside `SideEffect(…)`, which runs once and is recorded.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypeGuard

import attrs

from dalsegno.tools.lint.sources import COMMANDS, Function, Scope, Source, own_nodes

DRIVEN = (ast.YieldFrom, ast.Await, ast.Yield)


@attrs.frozen(eq=False)
class Code:
    """A function that runs inside a workflow. `yields`: what it yields goes to the interpreter. `shielded`: no
    cancellation reaches it."""

    function: Function
    workflow: str
    yields: bool
    shielded: bool = False

    @property
    def source(self) -> Source:
        return self.function.source

    @property
    def scope(self) -> Scope:
        return self.function.scope.children[id(self.function.node)]

    def nodes(self) -> Iterator[ast.AST]:
        """Everything in it that runs as part of a workflow, lambdas included."""
        skipped: set[int] = set()
        lambdas: list[ast.AST] = [self.function.node]
        while lambdas:
            for node in own_nodes(lambdas.pop()):
                if id(node) in skipped:
                    skipped.update(id(child) for child in ast.iter_child_nodes(node))
                    continue
                if isinstance(node, ast.Call) and self.meaning(node.func) == "dalsegno.SideEffect":
                    skipped.update(id(argument) for argument in [*node.args, *node.keywords])
                elif isinstance(node, ast.Lambda):
                    lambdas.append(node)
                yield node

    def meaning(self, node: ast.AST) -> Function | str | None:
        """What an expression in this code names."""
        return self.source.meaning(node, self.source.scope_of(node))

    def builds(self, node: ast.AST | None) -> str:
        """What a call builds that has to be yielded: the name of a command, step, workflow or branch; or nothing."""
        if not isinstance(node, ast.Call):
            return ""
        meaning = self.meaning(node.func)
        if isinstance(meaning, str):
            name = meaning.removeprefix("dalsegno.")
            return name if name in COMMANDS and name != meaning and name != "Command" else ""
        if meaning is None or meaning.kind == "decorated":
            return ""
        if meaning.kind == "plain":
            return meaning.name if meaning.is_branch and drives(meaning) else ""
        return meaning.name

    def parent(self, node: ast.AST) -> ast.AST | None:
        """What a node stands in."""
        return self.source.parents.get(node)


def drives(function: Function) -> bool:
    """Whether a generator or coroutine yields commands, as far as can be told: it delegates, or yields a command."""
    code = Code(function, "", True)
    return any(
        isinstance(node, ast.YieldFrom | ast.Await)
        or (isinstance(node, ast.Yield) and isinstance(node.value, ast.Call) and code.builds(node.value) != "")
        for node in own_nodes(function.node)
    )


def workflow_code(source: Source) -> list[Code]:
    """All code of a file that runs inside workflows, each function once."""
    todo = [Code(function, function.name, True) for function in source.functions if function.kind == "workflow"]
    found: dict[int, Code] = {}
    while todo:
        code = todo.pop(0)
        before = found.get(id(code.function))
        if before is not None:
            more = attrs.evolve(before, yields=before.yields or code.yields, shielded=before.shielded and code.shielded)
            if (more.yields, more.shielded) == (before.yields, before.shielded):
                continue
            code = more
        found[id(code.function)] = code
        todo += _reached(code)
    return sorted(found.values(), key=lambda code: code.function.node.lineno)


def _reached(code: Code) -> Iterator[Code]:
    for node in code.nodes():
        if not isinstance(node, ast.Call):
            continue
        called = code.meaning(node.func)
        if _is_ours(called, code):
            command = _command_around(node, code)
            driven = called.is_async or isinstance(code.parent(node), DRIVEN) or command != ""
            shielded = code.shielded or command == "Shield"
            yield Code(called, code.workflow, called.is_branch and driven, shielded)
        if isinstance(called, str) and called.startswith("dalsegno.") and called != "dalsegno.SideEffect":
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                handed = code.meaning(argument) if isinstance(argument, ast.Name) else None
                if _is_ours(handed, code):  # Map(branch, items)
                    yield Code(handed, code.workflow, handed.is_branch, code.shielded)


def _command_around(node: ast.AST, code: Code) -> str:
    """The command that a call stands in as a branch: directly, or in a list or comprehension in it."""
    parent = code.parent(node)
    while isinstance(parent, ast.List | ast.Tuple | ast.ListComp | ast.GeneratorExp | ast.Starred | ast.keyword):
        node, parent = parent, code.parent(parent)
    return code.builds(parent) if isinstance(parent, ast.Call) and parent.func is not node else ""


def _is_ours(meaning: Function | str | None, code: Code) -> TypeGuard[Function]:
    return isinstance(meaning, Function) and meaning.kind == "plain" and meaning.source is code.source
