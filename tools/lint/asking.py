"""What workflow code asks of the machine: calls and values named by the table of hazards, `id` and `hash`, variables of
the module that change, and the order of sets. Each check is a generator of (node, rule, what)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from dalsegno.core.determinism import HAZARDS
from dalsegno.tools.lint.reach import Code
from dalsegno.tools.lint.sources import Function, Scope, Source, own_nodes

Found = Iterator[tuple[ast.AST, str, str]]

_CALLS: Final = {name: hazard for hazard in HAZARDS for name in hazard.calls if not name.endswith(".*")}
_MODULES: Final = tuple((name[:-1], hazard) for hazard in HAZARDS for name in hazard.calls if name.endswith(".*"))
_BARE: Final = {name: hazard for hazard in HAZARDS for name in hazard.without_arguments}
_READS: Final = {name: hazard for hazard in HAZARDS for name in hazard.reads}


def hazards(code: Code) -> Found:
    """Clock, chance, files and the rest, by name."""
    for node in code.nodes():
        if isinstance(node, ast.Call):
            name = _called(node, code)
            rule = _rule_of_call(name, node) if name else ""
            if rule:
                yield node, rule, f"calls {name}()"
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            meaning = code.meaning(node)
            if isinstance(meaning, str) and meaning in _READS:
                yield node, _READS[meaning].rule, f"reads {meaning}"


def _called(node: ast.Call, code: Code) -> str:
    meaning = code.meaning(node.func)
    if isinstance(meaning, str):
        return meaning
    if isinstance(node.func, ast.Attribute) and _is_path(node.func.value, code):
        return f"pathlib.Path.{node.func.attr}"
    return ""


def _rule_of_call(name: str, node: ast.Call) -> str:
    if name in _BARE:
        return "" if node.args or node.keywords else _BARE[name].rule
    if name in _CALLS:
        return _CALLS[name].rule
    for prefix, hazard in _MODULES:
        last = name.rpartition(".")[2]
        is_exception = last.endswith(("Error", "Exception", "Warning"))
        if name.startswith(prefix) and name not in hazard.harmless and not is_exception and not last.startswith("_"):
            return hazard.rule
    return ""


def _is_path(node: ast.AST, code: Code, hops: int = 6) -> bool:
    """Whether an expression is a pathlib.Path, as far as its own text tells."""
    if not hops:
        return False
    match node:
        case ast.Call(func=func):
            if code.meaning(func) == "pathlib.Path":
                return True
            return isinstance(func, ast.Attribute) and func.attr in _PATH_PARTS and _is_path(func.value, code, hops - 1)
        case ast.BinOp(left=left, op=ast.Div()):
            return _is_path(left, code, hops - 1)
        case ast.Attribute(value=value, attr="parent"):
            return _is_path(value, code, hops - 1)
        case ast.Name(id=name):
            return _is_path_name(name, node, code, hops)
    return False


_PATH_PARTS: Final = ("joinpath", "with_suffix", "with_name", "with_stem", "absolute", "expanduser")


def _is_path_name(name: str, node: ast.AST, code: Code, hops: int) -> bool:
    scope = code.source.scope_of(node).find(name)
    if scope is None:
        return False
    value = scope.aliases.get(name)
    if value is not None:
        return _is_path(value, code, hops - 1)
    annotation = _annotation(scope, name)
    return annotation is not None and code.meaning(annotation) == "pathlib.Path"


def _annotation(scope: Scope, name: str) -> ast.expr | None:
    if isinstance(scope.node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = scope.node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if argument.arg == name:
                return argument.annotation
    for node in own_nodes(scope.node):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return node.annotation
    return None


# --- variables of the module ---------------------------------------------------------------------------------------

_MUTABLE: Final = frozenset(
    {"list", "dict", "set", "collections.defaultdict", "collections.Counter", "collections.deque"}
)
_CHANGES: Final = frozenset(
    {
        *("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "add", "discard", "update"),
        *("setdefault", "popitem", "appendleft", "popleft", "subtract"),
    }
)


def global_state(code: Code) -> Found:
    """Variables of the module that some function changes, read or changed by a workflow."""
    changing = _changed_names(code.source)
    for node in code.nodes():
        name = _changed(node, code.source)
        if name:
            yield node, "global-state", f"changes {name}, a variable of the module"
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in changing:
            parent = code.parent(node)
            inside_change = parent is not None and any(
                _changed(each, code.source) == node.id for each in (parent, code.parent(parent)) if each is not None
            )
            if not inside_change and _is_global(node, code.source):
                yield (
                    node,
                    "global-state",
                    f"reads {node.id}, a variable of the module that {changing[node.id]}() changes",
                )


def _changed_names(source: Source) -> dict[str, str]:
    """Names of module variables that functions of the file change, and one function that does."""
    found: dict[str, str] = {}
    for function in source.functions:
        for node in own_nodes(function.node):
            name = _changed(node, source)
            if name:
                found.setdefault(name, function.name)
    return found


def _changed(node: ast.AST, source: Source) -> str:
    """The module variable that a statement or call changes, if it is one."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return name if name in source.scope_of(node).global_names and name in source.scope.bound else ""
        case ast.Subscript(value=ast.Name() as held, ctx=ast.Store() | ast.Del()):
            return held.id if _is_global(held, source) else ""
        case ast.Call(func=ast.Attribute(value=ast.Name() as held, attr=attr)) if attr in _CHANGES:
            return held.id if _is_global(held, source) and _is_mutable(held.id, source) else ""
    return ""


def _is_global(name: ast.Name, source: Source) -> bool:
    """Whether a name is a variable of the module: not an import, a function or a class."""
    scope = source.scope_of(name)
    if name.id in scope.global_names:
        return name.id in source.scope.bound
    return scope.find(name.id) is source.scope and source.scope.bound[name.id] is None


def _is_mutable(name: str, source: Source) -> bool:
    for node in source.tree.body:
        if not isinstance(node, ast.AnnAssign | ast.Assign):
            continue
        target, value = node.target if isinstance(node, ast.AnnAssign) else node.targets[0], node.value
        if isinstance(target, ast.Name) and target.id == name and value is not None:
            display = isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
            made = isinstance(value, ast.Call) and source.meaning(value.func, source.scope) in _MUTABLE
            return display or made
    return False


# --- sets ----------------------------------------------------------------------------------------------------------

_ORDERED_BY: Final = frozenset(
    {"list", "tuple", "enumerate", "iter", "zip", "map", "filter", "dalsegno.Map", "dalsegno.All"}
)
_ORDERLESS: Final = frozenset({"sorted", "set", "frozenset", "sum", "min", "max", "any", "all", "len"})
_SETS: Final = frozenset({"set", "frozenset", "typing.AbstractSet", "collections.abc.Set", "typing.Set"})
_ANSWER_SETS: Final = frozenset({"union", "intersection", "difference", "symmetric_difference"})


def set_order(code: Code) -> Found:
    """Sets where their order matters."""
    for node in code.nodes():
        match node:
            case ast.For(iter=iterated) | ast.AsyncFor(iter=iterated):
                if _is_set(iterated, code):
                    yield iterated, "set-order", "goes through a set"
            case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
                if _is_set(node.generators[0].iter, code) and not _order_is_lost(node, code):
                    yield node.generators[0].iter, "set-order", "goes through a set"
            case ast.Call(func=ast.Attribute(value=held, attr="pop"), args=[]) if _is_set(held, code):
                yield node, "set-order", "takes whichever element of a set comes first"
            case ast.Call(func=ast.Attribute(attr="join"), args=[argument]) if _is_set(argument, code):
                yield node, "set-order", "joins the elements of a set"
            case ast.Call(func=func) if code.meaning(func) in _ORDERED_BY and not _order_is_lost(node, code):
                if any(_is_set(argument, code) for argument in node.args):
                    yield node, "set-order", f"puts a set in order with {ast.unparse(func)}()"
            case ast.Starred(value=value) if _is_set(value, code) and not isinstance(code.parent(node), ast.Set):
                yield node, "set-order", "unpacks a set"


def _order_is_lost(node: ast.AST, code: Code) -> bool:
    """Whether what is made goes at once into something that does not care for order."""
    parent = code.parent(node)
    return isinstance(parent, ast.Call) and code.meaning(parent.func) in _ORDERLESS and node in parent.args


def _is_set(node: ast.AST, code: Code, hops: int = 4) -> bool:
    """Whether an expression is a set, as far as the function's own text tells."""
    if not hops:
        return False
    match node:
        case ast.Set(elts=elements):
            return not all(isinstance(element, ast.Constant) and isinstance(element.value, int) for element in elements)
        case ast.SetComp():
            return True
        case ast.Call(func=ast.Attribute(value=held, attr=attr)) if attr in _ANSWER_SETS:
            return _is_set(held, code, hops - 1)
        case ast.Call(func=func):
            return code.meaning(func) in ("set", "frozenset")
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
            keys = _is_keys(left) and (_is_keys(right) or _is_set(right, code, hops - 1))
            return keys or _is_set(left, code, hops - 1)
        case ast.Name(id=name):
            return _is_set_name(name, node, code, hops)
    return False


def _is_keys(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"


def _is_set_name(name: str, node: ast.AST, code: Code, hops: int) -> bool:
    scope = code.source.scope_of(node).find(name)
    if scope is None or isinstance(scope.bound.get(name), str | Function):
        return False
    value = scope.aliases.get(name)
    if value is not None:
        return _is_set(value, code, hops - 1)
    annotation = _annotation(scope, name)
    return annotation is not None and code.meaning(annotation) in _SETS
