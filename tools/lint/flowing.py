"""How workflow code drives its commands: yields that were forgotten, yields of what is no command, cancellations that
are swallowed, clean-up that a cancellation can interrupt. Each check is a generator of (node, rule, what)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from dalsegno.tools.lint.asking import Found
from dalsegno.tools.lint.reach import Code
from dalsegno.tools.lint.sources import Function, own_nodes

_USED_AS_VALUE: Final = (
    *(ast.Attribute, ast.Subscript, ast.BinOp, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.FormattedValue, ast.For),
    *(ast.If, ast.While, ast.IfExp, ast.Assert, ast.comprehension, ast.AsyncFor),
)
"""What makes something of a value. A command is none yet, so it was meant to be yielded first."""


def forgotten_yield(code: Code) -> Found:
    """Commands that are built and dropped, or used as if they were their results."""
    for node in code.nodes():
        built = code.builds(node)
        if not built:
            continue
        what = _misuse(node, code)
        if what:
            yield node, "forgotten-yield", f"{ast.unparse(node.func)}(…) {what}"  # type: ignore[attr-defined]


def _misuse(node: ast.AST, code: Code) -> str:
    """How a built command is misused where it stands, or nothing."""
    parent = code.parent(node)
    if isinstance(parent, ast.Expr):
        return "is built and dropped: it never runs"
    if isinstance(parent, ast.Return):
        return "is returned instead of its result" if code.yields else ""
    if _makes_value_of(parent, node):
        return "is used as if it were its result"
    if isinstance(parent, ast.Assign | ast.AnnAssign | ast.NamedExpr):
        target = parent.targets[0] if isinstance(parent, ast.Assign) else parent.target
        if isinstance(target, ast.Name) and isinstance(code.parent(parent), ast.AST):
            return _misuse_of_name(target, code)
    return ""


def _makes_value_of(parent: ast.AST | None, node: ast.AST) -> bool:
    if isinstance(parent, ast.IfExp | ast.If | ast.While | ast.Assert):
        return parent.test is node
    if isinstance(parent, ast.For | ast.AsyncFor | ast.comprehension):
        return parent.iter is node
    if isinstance(parent, ast.Subscript):
        return parent.value is node
    if isinstance(parent, ast.Compare):
        return not all(isinstance(operator, ast.Is | ast.IsNot) for operator in parent.ops)
    return isinstance(parent, _USED_AS_VALUE)


def _misuse_of_name(target: ast.Name, code: Code) -> str:
    """A command kept under a name is fine if the name is ever used as a command may be."""
    scope = code.source.scope_of(target)
    uses = [
        node
        for node in ast.walk(scope.node)
        if isinstance(node, ast.Name) and node.id == target.id and node is not target
    ]
    if any(not isinstance(use.ctx, ast.Load) for use in uses) or target.id in scope.global_names:
        return ""
    if not uses:
        return "is kept under a name and never yielded" if not target.id.startswith("_") else ""
    misused = [use for use in uses if _makes_value_of(code.parent(use), use) and not _is_callback_field(use, code)]
    return "is used as if it were its result" if len(misused) == len(uses) else ""


def _is_callback_field(use: ast.Name, code: Code) -> bool:
    """`callback.token`, `task.id`: what a command carries may be read."""
    parent = code.parent(use)
    return isinstance(parent, ast.Attribute) and parent.attr in ("token", "id", "name", "kind")


def alien_yield(code: Code) -> Found:
    """Yields of generators, of functions that were not called, of lists and plain values."""
    if not code.yields or (code.function.kind == "plain" and not _delegates(code)):
        return
    for node in own_nodes(code.function.node):
        if not isinstance(node, ast.Yield | ast.YieldFrom | ast.Await):
            continue
        value = node.value
        meaning = code.meaning(value) if isinstance(value, ast.Name | ast.Attribute) else None
        if isinstance(meaning, Function) and meaning.kind in ("step", "workflow"):
            yield node, "alien-yield", f"yields {meaning.kind} {meaning.name!r} itself, not a call of it"
        else:
            what = _raw_call(value, code) or (_alien(value, code) if isinstance(node, ast.Yield) else "")
            if what:
                yield node, "alien-yield", f"yields {what}"


def _delegates(code: Code) -> bool:
    """A generator helper that never yields a command makes data, and is nobody's branch."""
    return any(
        isinstance(node, ast.YieldFrom | ast.Await) or (isinstance(node, ast.Yield) and code.builds(node.value))
        for node in own_nodes(code.function.node)
    )


def _alien(value: ast.expr | None, code: Code) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, ast.List | ast.Tuple | ast.Set | ast.Dict | ast.ListComp | ast.GeneratorExp):
        return f"a {type(value).__name__.lower().replace('comp', '').replace('generatorexp', 'generator')}"
    if isinstance(value, ast.Constant | ast.JoinedStr):
        return f"{ast.unparse(value)}"
    if isinstance(value, ast.Call):
        meaning = code.meaning(value.func)
        if isinstance(meaning, Function) and meaning.kind == "plain" and meaning.is_branch:
            kind = "coroutine" if meaning.is_async else "generator"
            return f"the {kind} {meaning.name}(…), which the interpreter does not take"
    return ""


_DATA: Final = frozenset(
    {
        *(
            "abs",
            "all",
            "any",
            "bool",
            "bytes",
            "dict",
            "enumerate",
            "filter",
            "float",
            "format",
            "hash",
            "id",
            "input",
        ),
        *("int", "isinstance", "len", "list", "map", "open", "print", "range", "repr", "round", "set", "sorted", "str"),
        *("sum", "tuple", "zip"),
    }
)
"""Builtins that never answer a command, whatever they are given."""


def _raw_call(value: ast.expr | None, code: Code) -> str:
    """A call that does something here and now, where a command was wanted."""
    if not isinstance(value, ast.Call):
        return ""
    if isinstance(value.func, ast.Attribute) and value.func.attr == "fn":
        meant = code.meaning(value.func.value)
        if isinstance(meant, Function) and meant.kind in ("step", "workflow"):
            return f"what {ast.unparse(value.func)}(…) answers: that calls the function here, and records nothing"
    meaning = code.meaning(value.func)
    if isinstance(meaning, str) and meaning in _DATA:
        return f"what {meaning}(…) answers, which is no command"
    if isinstance(meaning, Function) and meaning.kind == "plain" and not meaning.is_branch and _answers_data(meaning):
        return f"what {meaning.name}(…) answers, which is no command"
    return ""


def _answers_data(function: Function) -> bool:
    """Whether a function returns nothing, or plain values wherever it returns."""
    kinds = (*_PLAIN, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp)
    returned = [node.value for node in own_nodes(function.node) if isinstance(node, ast.Return)]
    stub = isinstance(function.node.body[-1], ast.Expr) and ast.unparse(function.node.body[-1]) == "..."
    return not stub and all(value is None or isinstance(value, kinds) for value in returned)


_PLAIN: Final = (ast.Constant, ast.JoinedStr, ast.Compare, ast.UnaryOp, ast.BinOp)

# --- cancellation --------------------------------------------------------------------------------------------------

_EVERYTHING: Final = frozenset({"Exception", "BaseException", "dalsegno.DalsegnoError", "dalsegno.Outcome"})


def swallowed_cancel(code: Code) -> Found:
    """Handlers that catch `Cancelled` by catching everything, around a yield, and let nothing out."""
    if not code.yields or code.shielded:
        return
    for node in code.nodes():
        if isinstance(node, ast.Try | ast.TryStar) and _yields(node.body):
            for handler in node.handlers:
                caught = _caught(handler, code)
                if "dalsegno.Cancelled" in caught:
                    break  # it is dealt with on purpose
                if (handler.type is None or caught & _EVERYTHING) and not _raises(handler):
                    name = ast.unparse(handler.type) if handler.type is not None else ""
                    yield handler, "swallowed-cancel", f"`except{' ' + name if name else ''}:` catches Cancelled, too"
        elif isinstance(node, ast.With | ast.AsyncWith) and _yields(node.body):
            for called in (item.context_expr for item in node.items):
                if isinstance(called, ast.Call) and _suppressed(called, code) & _EVERYTHING:
                    yield called, "swallowed-cancel", f"{ast.unparse(called)} suppresses Cancelled, too"


def _suppressed(called: ast.Call, code: Code) -> set[str]:
    """The errors that `contextlib.suppress(…)` names."""
    if code.meaning(called.func) != "contextlib.suppress":
        return set()
    return {meaning for argument in called.args if isinstance(meaning := code.meaning(argument), str)}


def _caught(handler: ast.ExceptHandler, code: Code) -> set[str]:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type] if handler.type else []
    return {meaning for kind in kinds if isinstance(meaning := code.meaning(kind), str)}


def _raises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in own_nodes(handler))


def _yields(body: list[ast.stmt]) -> bool:
    return bool(list(_yield_points(body)))


def _yield_points(body: list[ast.stmt]) -> Iterator[ast.Yield | ast.YieldFrom | ast.Await]:
    for node in own_nodes(ast.Module(body, [])):
        if isinstance(node, ast.Yield | ast.YieldFrom | ast.Await):
            yield node


_AT_ONCE: Final = frozenset({"Shield", "Publish", "Now", "Uuid", "Random", "Info", "Patched", "SideEffect", "Send"})
"""Commands that no cancellation interrupts: shielded, or answered at once."""


def finally_yield(code: Code) -> Found:
    """`finally` blocks with more to do after a yield that a cancellation can interrupt."""
    if not code.yields or code.shielded:
        return
    for node in code.nodes():
        if isinstance(node, ast.Try | ast.TryStar) and node.finalbody:
            points = [point for point in _yield_points(node.finalbody) if not _at_once(point, code)]
            last = node.finalbody[-1]
            for point in points:
                is_last = (point.lineno, point.col_offset) >= (last.lineno, last.col_offset)
                if not (is_last and point is points[-1] and not _in_loop(point, node, code)):
                    yield point, "finally-yield", "a cancellation here leaves the rest of the clean-up undone"
                    break


def _at_once(point: ast.Yield | ast.YieldFrom | ast.Await, code: Code) -> bool:
    return isinstance(point.value, ast.Call) and code.builds(point.value) in _AT_ONCE


def _in_loop(point: ast.AST, end: ast.AST, code: Code) -> bool:
    current: ast.AST | None = code.parent(point)
    while current is not None and current is not end:
        if isinstance(current, ast.For | ast.While | ast.AsyncFor):
            return True
        current = code.parent(current)
    return False
